"""A tiny BERT, not pretrained, with the Trainer of Hugging Face's transformers.

thalweg race examples/transformers_trainer.py:main --rules sgd,adam --trials 4
"""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


def rows(n, seed):
    words = torch.randint(20, (n, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": int(row[0] > row[-1])} for row in words]


def compute_metrics(prediction):
    return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}


# was: def main():
def main(run):
    config = BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertForSequenceClassification(config)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=16, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_strategy="no", eval_strategy="steps", eval_steps=20,
        # was: max_steps=200, learning_rate=1e-3, seed=0,
        max_steps=len(run.steps(200)), learning_rate=1e-3, seed=run.seed,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=rows(800, 0), eval_dataset=rows(200, 1),
        # was: compute_metrics=compute_metrics,
        compute_metrics=lambda prediction: run.report(**compute_metrics(prediction)) or compute_metrics(prediction),
        # was: optimizers=(torch.optim.AdamW(model.parameters(), lr=1e-3), None),
        optimizers=(run.optimizer(model, lr=1e-3), None),
    )  # fmt: skip
    trainer.train()
