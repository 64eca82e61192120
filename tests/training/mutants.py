"""Seeded errors in auxiliary losses, in figures of one's own and in the count of experts."""

from __future__ import annotations

LINEAR, LINEAR_TESTS = "harness/training/linear_head.py", "training/test_linear_head.py"
TRAINER, COSTS = "harness/training/trainer.py", "harness/compute/costs.py"
FIGURES = "harness/evaluation/own_metrics.py"
MUON = "harness/training/muon.py"
LOSSES, OWN = "training/test_auxiliary_losses.py", "evaluation/test_own_metrics.py"

OF_LOSSES_AND_FIGURES = {
    "an auxiliary loss without its weight": (
        TRAINER,
        "weight * own * names[name]",
        "weight * own",
        f"{LOSSES} -k weighted",
    ),
    "an auxiliary loss is of the last micro-batch": (
        TRAINER,
        "auxiliary[name] += own / count * each.detach()",
        "auxiliary[name] = each.detach()",
        f"{LOSSES} -k micro",
    ),
    "no gradient of auxiliary losses where logits come in chunks": (
        "harness/training/loss.py",
        "torch.autograd.backward([features_BTC, *others], [gradient_BTC, *weights])",
        "features_BTC.backward(gradient_BTC)",
        f"{LOSSES} -k chunks",
    ),
    "each process keeps the precision that it measured": (
        "harness/compute/race.py",
        "found = _kept(conditions, products) or measured",
        "found = measured",
        "compute/test_race.py -k first",
    ),
    "targets that don't count pull at a linear head": (
        LINEAR,
        "weight_N1 = weight * counts_N1",
        "weight_N1 = weight.expand_as(counts_N1)",
        f"{LINEAR_TESTS} -k cross_entropy",
    ),
    "a linear head's smoothed gradients are of the whole target": (
        LINEAR,
        "weight_N1 * (label_smoothing - 1)",
        "-weight_N1",
        f"{LINEAR_TESTS} -k cross_entropy",
    ),
    "the nats behind a linear head are of the target's probability": (
        LINEAR,
        "nats_N1 = largest_N1 - wide_NV.amax(1, keepdim=True).log() - own_N1",
        "nats_N1 = -wide_NV.gather(1, targets_N1).log()",
        f"{LINEAR_TESTS} -k no_chance",
    ),
    "the product replaces a linear head's gradient": (
        LINEAR,
        "total_VC.addmm_(a_VN, b_NC)",
        "total_VC.copy_(a_VN @ b_NC)",
        f"{LINEAR_TESTS} -k cross_entropy",
    ),
    "Gram matrices in bf16": (
        MUON,
        "x.dtype.itemsize >= 4 and whole",
        "whole",
        "training/test_orthogonalized.py -k every_size",
    ),
    "the schedule does not reach Muon": (
        MUON,
        'own["lr"] = group["lr"]',
        "pass",
        "training/test_optimizers.py -k own_rate",
    ),
    "Muon moves all matrices of a shape by the first one's rate": (
        MUON,
        'group["lr"], max(updates.shape[1:])',
        'alike[0][0]["lr"], max(updates.shape[1:])',
        "training/test_optimizers.py -k own_rate",
    ),
    "Muon goes on with an older gradient of a stack": (
        MUON,
        "view.grad = None if part is None else part.view(view.shape)",
        "view.grad = view.grad if part is None else part.view(view.shape)",
        "training/test_optimizers.py -k own_rate",
    ),
    "Muon takes joint maps apart unasked": (
        MUON,
        "if per_map and maps:",
        "if maps:",
        "training/test_per_map.py -k alone",
    ),
    "a run from before there was a choice is asked for it": (
        "harness/runs/resume.py",
        'elif key not in its and (own.get(key) == "auto" or f"optimizer.{key}" not in typed):',
        "elif False:",
        "training/test_added_options.py -k goes_on",
    ),
    "idle experts are active": (
        COSTS,
        '"active": total - idle',
        '"active": total',
        "zoo/test_experts.py -k closed_forms",
    ),
    "a figure is not of every target": (
        FIGURES,
        "values.mean(axis=0, dtype=np.float64)",
        "values[1:].mean(axis=0, dtype=np.float64)",
        f"{OWN} -k mean",
    ),
    "a figure can spoil the others": (
        FIGURES,
        "logits_NV.clone(), targets_N.clone(), nats",
        "logits_NV, targets_N, nats",
        f"{OWN} -k fails",
    ),
}
