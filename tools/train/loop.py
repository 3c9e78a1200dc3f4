"""The training loop: AdamW, cosine decay, moving average of weights, checkpoints."""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tools.train.batches import Batch, Batches

__all__ = ["Plan", "plot_curve", "train"]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard to train.

    Parameters
    ----------
    steps : batches in all
    rate : highest learning rate
    decay : of weights (Loshchilov & Hutter 2019)
    average : share of the moving average that each step keeps, once it has settled
    bf16 : compute in bfloat16 where it is safe; pays off with AMX or a GPU
    device : cpu, or cuda
    every : steps between two lines of the learning curve, and two checkpoints
    """

    steps: int
    rate: float = 2e-3
    decay: float = 0.01
    average: float = 0.998
    bf16: bool = False
    device: str = "cpu"
    every: int = 200

    def rate_at(self, step: int) -> float:
        """Learning rate: up during 2 % of the steps, then down along a cosine."""
        warm = max(self.steps // 50, 1)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(self.steps - warm, 1)))


def train(
    network: nn.Module,
    batches: Batches,
    validation: list[Batch],
    plan: Plan,
    folder: Path,
    *,
    loss: Loss,
    score: Score,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Train a network, or go on where a checkpoint in the folder ends.

    Parameters
    ----------
    network : trained in place
    batches : the batch of every step
    validation : batches of other samples
    plan : steps, rates, device
    folder : for checkpoint.pt and curve.csv
    loss : of logits, targets and weights
    score : of the validation's logits and targets; a number to look at

    Returns
    -------
    network : the moving average of the weights, in evaluation mode
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.to(plan.device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), plan.rate, weight_decay=plan.decay)
    checkpoint = folder / "checkpoint.pt"
    first, rows = 0, list[dict[str, float]]()
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=plan.device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first, rows = state["step"], state["curve"]
        say(f"{folder.name}: goes on at step {first} of {plan.steps}")

    started, running = time.perf_counter(), list[float]()
    before = rows[-1]["seconds"] if rows else 0.0
    for step in range(first, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate_at(step)
        inputs, targets, weights = (
            torch.from_numpy(np.ascontiguousarray(a)).to(plan.device) for a in batches(step)
        )
        with torch.autocast(plan.device.split(":")[0], torch.bfloat16, enabled=plan.bf16):
            logits = network(inputs)
        value = loss(logits.float(), targets, weights)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        _follow(average, network, min(plan.average, (step + 1) / (step + 20)))
        running.append(float(value.detach()))
        if (step + 1) % plan.every == 0 or step + 1 == plan.steps:
            row = {
                "step": float(step + 1),
                "seconds": before + time.perf_counter() - started,
                "loss": float(np.mean(running)),
                **_validate(average, validation, plan, loss, score),
            }
            rows.append(row)
            running.clear()
            state = {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "curve": rows,
            }
            _save(state, checkpoint)
            _write_curve(rows, folder / "curve.csv")
            say(
                f"{folder.name}: step {step + 1} of {plan.steps}, {row['seconds']:.0f} s, "
                f"loss {row['loss']:.4f}, validation {row['validation']:.4f}, score {row['score']:.4f}"
            )
    return average.eval()


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    for mine, other in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(other, 1 - keep)
        else:
            mine.copy_(other)


@torch.no_grad()
def _validate(
    network: nn.Module, validation: list[Batch], plan: Plan, loss: Loss, score: Score
) -> dict[str, float]:
    network.eval()
    losses, scores = [], []
    for batch in validation:
        inputs, targets, weights = (torch.from_numpy(np.ascontiguousarray(a)).to(plan.device) for a in batch)
        logits = network(inputs)
        losses.append(float(loss(logits, targets, weights)))
        scores.append(score(logits, targets))
    return {"validation": float(np.mean(losses)), "score": float(np.mean(scores))}


def _save(state: dict[str, object], path: Path) -> None:
    """A checkpoint is whole or the one before."""
    half = path.with_suffix(".part")
    torch.save(state, half)
    half.replace(path)


def _write_curve(rows: list[dict[str, float]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)


def plot_curve(curve: Path, picture: Path) -> None:
    """Draw a learning curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with curve.open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    steps = [row["step"] for row in rows]
    figure, left = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    left.plot(steps, [row["loss"] for row in rows], label="training loss")
    left.plot(steps, [row["validation"] for row in rows], label="validation loss")
    left.set(xlabel="step", ylabel="loss", yscale="log")
    right = left.twinx()
    right.plot(steps, [row["score"] for row in rows], color="tab:green", label="validation score")
    right.set_ylabel("score")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)
