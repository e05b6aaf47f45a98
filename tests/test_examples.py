"""The examples as their readers start them: in processes of their own, with small settings, alone and on two ranks."""

import json
import math
import os
import re
import sys
from pathlib import Path

import pytest
from tables.comms import finish_job
from test_launch import RUN, needs_mpi

EXAMPLES = Path(__file__).parents[1] / "examples"
ALONE = os.environ | {"OMP_NUM_THREADS": "1"}  # other tests run beside these

# script -> (arguments, what the last line of the output must say)
SMALL = {
    "mnist.py": ("--epochs 1", lambda r: r["test_accuracy"] > 0.9),
    "char_gpt.py": (
        "--steps 80 --layers 1 --width 32 --block-size 32 --batch-size 16 --lr 1e-2 --sample 20",
        lambda r: r["validation_loss"] < 3.2 < math.log(65),  # the latter in the beginning
    ),
    "lstm_language_model.py": (
        "--epochs 1 --words 20000 --width 32 --layers 1 --least 20 --streams 20 --length 10 --lr 1e-2 --sample 10",
        lambda r: r["validation_perplexity"] < r["vocabulary"] / 4,
    ),
    "vae.py": ("--epochs 1 --hidden 64 --codes 4", lambda r: r["test_negative_elbo"] < 300),  # 543 in the beginning
    "policy_gradient.py": ("--updates 15 --hidden 16", lambda r: r["mean_steps"] > r["first_mean_steps"]),
}


def run_small(command, script, folder, *more):
    arguments, learnt = SMALL[script]
    done = finish_job([*command, str(EXAMPLES / script), *arguments.split(), *more], 120, cwd=folder, env=ALONE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert learnt(result), result
    assert result["seconds"] > 0
    return result


@pytest.mark.parametrize("script", SMALL)
def test_example(script, tmp_path):
    assert run_small([sys.executable], script, tmp_path)["world_size"] == 1


@needs_mpi
@pytest.mark.parametrize("script", SMALL)
def test_example_on_two_ranks(script, tmp_path):
    assert run_small([*RUN, "-n", "2"], script, tmp_path)["world_size"] == 2


@needs_mpi
def test_the_number_of_ranks_does_not_change_the_losses(tmp_path):
    losses = []
    for ranks in ("1", "2"):
        path = tmp_path / ranks
        run_small([*RUN, "-n", ranks], "mnist.py", tmp_path, "--losses", str(path))
        losses.append(json.loads(path.read_text()))
    assert losses[1][:40] == pytest.approx(losses[0][:40], rel=1e-4)  # later, rounding has grown


@needs_mpi
def test_lanes_make_the_bits_independent_of_the_number_of_ranks(tmp_path):
    alone = run_small([sys.executable], "mnist.py", tmp_path, "--lanes", "8")
    shared = run_small([*RUN, "-n", "3"], "mnist.py", tmp_path, "--lanes", "8")
    assert shared["world_size"] == 3 and shared["weights_sha256"] == alone["weights_sha256"]


def test_vae_draws_a_picture(tmp_path):
    run_small([sys.executable], "vae.py", tmp_path, "--output", "digits.png")
    picture = (tmp_path / "digits.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture[12:24] == b"IHDR" + (224).to_bytes(4, "big") * 2


@needs_mpi
def test_a_batch_that_cannot_be_shared_out_is_refused():
    done = finish_job([*RUN, "-n", "2", str(EXAMPLES / "char_gpt.py"), "--batch-size", "3"], env=ALONE)
    assert done.returncode == 2
    assert "--batch-size 3 cannot be shared out evenly to 2 ranks" in done.stderr


def first_steps(name):
    done = finish_job([sys.executable, str(EXAMPLES / "first_steps" / name)], 120, env=ALONE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_gradients():
    assert first_steps("1_gradients.py").splitlines() == [
        "tensor([11., 19.], grad_fn=<AddBackward0>)",
        "tensor([7., 9.])",
    ]


def test_branch_on_data():
    assert first_steps("2_branch_on_data.py").splitlines() == [
        "[1.0, 2.0] -> tensor([2., 4.])",
        "[-1.0, -2.0] -> tensor([3., 3.])",
    ]


def test_linear_regression():
    *_, line, prediction = first_steps("3_linear_regression.py").splitlines()
    w, b = map(float, re.findall(r"-?\d+\.\d+", line))
    assert (w, b) == pytest.approx((2, 0), abs=0.05)
    assert float(prediction.split()[-1]) == pytest.approx(8, abs=0.05)


def test_mlp():
    accuracies = [float(line.split()[-1]) for line in first_steps("4_mlp.py").splitlines()]
    assert len(accuracies) == 3
    assert accuracies[-1] > 0.9


def test_cnn():
    losses = [float(line.split()[-1]) for line in first_steps("5_cifar_cnn.py").splitlines()]
    assert losses[1] < losses[0] < 2.4  # 2.303 = log(10): nothing is learnt yet from noise
