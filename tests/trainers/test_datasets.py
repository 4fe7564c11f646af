"""Datasets: real digits, the mixture, the order of an epoch, and the conversion to the networks' input and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from trainers.datasets import Digits, Mixture, epoch_order, to_examples, to_input

seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("held_out", [1, 500, 1796])
def test_digits_are_all_of_sklearns_each_once(held_out: int, tmp_path: Path) -> None:
    dataset = Digits(held_out=held_out)
    data = dataset.load(tmp_path)
    assert data.train.shape == (1797 - held_out, 1, 8, 8) == (dataset.train_size, *dataset.shape)
    assert data.held_out.shape == (held_out, 1, 8, 8) == (dataset.held_out_size, *dataset.shape)
    assert data.train.dtype == data.held_out.dtype == torch.uint8

    assert data.train_labels is not None
    assert data.held_out_labels is not None
    images = torch.cat([data.train, data.held_out]).flatten(1).double().numpy() * (16 / 255)
    labels = torch.cat([data.train_labels, data.held_out_labels]).numpy()
    ours = np.column_stack([np.rint(images), labels])  # grey levels 0…16 again, and the label beside them
    theirs = np.column_stack([load_digits().data, load_digits().target])
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    assert np.abs(images - np.rint(images)).max() < 0.05  # nothing but the scale has changed
    assert {int(data.train.min()), int(data.train.max())} <= {0, 255}


def test_the_digits_content_is_stable(tmp_path: Path) -> None:
    digest = "8dea49db81968caa48adf51732dcaa5177f54f9c13eff5a43cf231ec1d924c1c"  # the key of classifiers in caches
    assert Digits().load(tmp_path).digest == digest


def test_digits_keep_all_classes_on_both_sides(tmp_path: Path) -> None:
    data = Digits().load(tmp_path)
    for labels in (data.train_labels, data.held_out_labels):
        assert labels is not None
        assert labels.bincount().min() > 0.07 * len(labels)


def test_mixture_has_the_papers_three_clusters(tmp_path: Path) -> None:
    dataset = Mixture()
    data = dataset.load(tmp_path)
    assert (dataset.train_size, dataset.held_out_size) == (140, 140)
    for points in (data.train, data.held_out):
        assert points.shape == (140, 2)
        assert points.dtype == torch.float32
        clusters = KMeans(3, n_init=5, random_state=0).fit_predict(points.numpy())
        assert sorted(np.bincount(clusters).tolist()) == [30, 50, 60]
    assert not torch.equal(data.train, data.held_out)


@pytest.mark.parametrize("dataset", [Digits(), Mixture()], ids=["digits", "mixture"])
def test_every_call_loads_the_same_and_touches_no_random_state(dataset: Digits | Mixture, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    one, other = dataset.load(tmp_path), dataset.load(tmp_path)
    assert torch.equal(one.train, other.train)
    assert torch.equal(one.held_out, other.held_out)
    assert one.digest == other.digest
    assert torch.equal(torch.get_rng_state(), state)


def test_digest_tells_splits_and_labels_apart(tmp_path: Path) -> None:
    digits = Digits().load(tmp_path)
    assert digits.train_labels is not None
    relabelled = replace(digits, train_labels=9 - digits.train_labels)
    others = [relabelled, Digits(held_out=499).load(tmp_path), Mixture().load(tmp_path)]
    assert len({data.digest for data in [digits, *others]}) == 4


@given(n=st.integers(1, 500), seed=seeds, epoch=seeds)
@settings(deadline=None, max_examples=50)
def test_epoch_order_is_a_permutation_of_its_arguments(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    torch.rand(1)  # independent of the global random state
    assert torch.equal(epoch_order(n, seed, epoch), order)


@given(seed=seeds, epoch=seeds)
@settings(deadline=None, max_examples=50)
def test_epoch_order_differs_between_epochs_and_seeds(seed: int, epoch: int) -> None:
    orders = [epoch_order(200, *pair).tolist() for pair in [(seed, epoch), (seed, epoch + 1), (seed + 1, epoch)]]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    if seed != epoch:
        assert epoch_order(200, epoch, seed).tolist() != orders[0]


def test_images_go_to_networks_and_back_exactly() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    inputs = to_input(images)
    assert inputs.dtype == torch.float32
    assert (inputs.min().item(), inputs.max().item()) == (-1, 1)
    assert torch.equal(to_examples(inputs, like=images), images)


def test_outputs_beyond_the_range_are_the_nearest_grey() -> None:
    outputs = torch.tensor([-3.0, -1.001, 0.0, 1.001, 3.0])
    assert to_examples(outputs, like=torch.zeros(1, dtype=torch.uint8)).tolist() == [0, 0, 128, 255, 255]


def test_points_stay_as_they_are(tmp_path: Path) -> None:
    points = Mixture().load(tmp_path).train * 100
    assert torch.equal(to_input(points), points)
    assert torch.equal(to_examples(points, like=points), points)
