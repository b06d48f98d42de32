"""From a traced graph to text: LaTeX here, kernels and browser code beside it."""
