"""From a step to running code: backends that all compute the one formula of `thalweg.stages`."""
