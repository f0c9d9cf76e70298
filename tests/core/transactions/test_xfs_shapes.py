"""Shapes of records: a few dozen are kept, and none of a large record."""

from __future__ import annotations

import numpy as np

from pydbt.core.transactions.xfs_shapes import _MAX_KNOWN, _MAX_WORDS, Shapes

WORDS = np.arange(4 * _MAX_WORDS, dtype=">u4")
OPERATIONS = np.array([10, 13], np.int64)
FORMATS = np.array([16], np.int64)


def learn(shapes: Shapes, kind: int, operations: np.ndarray = OPERATIONS) -> None:
    shapes.learn(kind, WORDS, 10, operations, FORMATS, WORDS[:1])


def test_the_shape_that_was_learnt_longest_ago_makes_room() -> None:
    shapes = Shapes()
    for kind in range(_MAX_KNOWN):
        learn(shapes, kind)
    learn(shapes, 0)  # once more
    learn(shapes, _MAX_KNOWN)
    assert shapes.get(1) is None
    assert all(shapes.get(kind) is not None for kind in (0, 2, _MAX_KNOWN))


def test_no_shape_of_a_record_with_a_great_many_operations_is_kept() -> None:
    shapes = Shapes()
    learn(shapes, 1, np.arange(10, 11 + _MAX_WORDS, dtype=np.int64))
    assert shapes.get(1) is None


def test_a_record_fits_if_its_words_are_the_same_where_its_kind_is_told() -> None:
    shapes = Shapes()
    words = np.tile(np.arange(20, dtype=">u4"), 2)
    words[[0, 3, 20, 23]] = 7  # the number of the transaction, at the beginning of each operation
    shapes.learn(1, words, 0, np.array([0, 3]), np.array([6]), words[:1])
    shape = shapes.get(1)
    assert shape is not None
    begins = np.array([0, 20])
    assert shape.fits(words, begins).tolist() == [True, True]
    words[26] += 1  # the format of an item of the second
    assert shape.fits(words, begins).tolist() == [True, False]
    words[26] -= 1
    words[23] = 8  # an operation of another transaction
    assert shape.fits(words, begins).tolist() == [True, False]
