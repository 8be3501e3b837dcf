"""Token sequences as rows for a causal model, those that begin alike as one: what they share is read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# A tree is held to so many tokens, so that no distance in a row is far from that in its texts, and to texts that share
# this part of theirs with the one before: less is not worth the longer row (benchmarks/minimal_pairs.py).
TREE_TOKENS = 128
SHARED = 0.25


@dataclass(frozen=True)
class Row:
    """Tokens that are read at once, and what is predicted from them.

    `tokens`, `positions (tokens,)`: each token, and its position in its sequence. `visible (tokens, tokens)`: the
    tokens that each one attends to, itself included; None of a single sequence, whose tokens attend to all before them.
    `sources`, `targets`, `owners (predicted,)`: the place that predicts, the token behind it, and the sequence that
    both are of.
    """

    tokens: np.ndarray
    positions: np.ndarray
    visible: np.ndarray | None
    sources: np.ndarray
    targets: np.ndarray
    owners: np.ndarray


def single_row(sequence: np.ndarray, *, first: int, owner: int) -> Row:
    """Return the row of one sequence `(tokens + 1,)`, of which the tokens from place `first` + 1 on are predicted.

    >>> row = single_row(np.array([1, 7, 8, 9]), first=1, owner=0)
    >>> row.tokens.tolist(), row.sources.tolist(), row.targets.tolist()
    ([1, 7, 8], [1, 2], [8, 9])
    """
    length = len(sequence) - 1
    places = np.arange(first, length)
    return Row(sequence[:-1], np.arange(length), None, places, sequence[first + 1 :], np.full(len(places), owner))


def tree_rows(sequences: Mapping[int, np.ndarray], *, first: Mapping[int, int]) -> list[Row]:
    """Return the rows of sequences by number, of which those from place `first` + 1 on are predicted.

    Sequences that begin alike are one row, a tree: what they share stands there once, and each token attends to those
    on the way from the root to it.

    >>> pairs = {0: np.array([1, 7, 8, 9]), 1: np.array([1, 7, 5, 9]), 2: np.array([1, 4])}
    >>> for row in tree_rows(pairs, first={0: 0, 1: 0, 2: 0}):
    ...     print(row.tokens.tolist(), row.positions.tolist(), row.sources.tolist(), row.targets.tolist())
    [1] [0] [0] [4]
    [1, 7, 5, 8] [0, 1, 2, 2] [0, 1, 2, 0, 1, 3] [7, 5, 9, 7, 8, 9]
    """
    rows: list[Row] = []
    group: list[int] = []
    size = 0
    for number in sorted(sequences, key=lambda number: sequences[number].tolist()):
        length = len(sequences[number]) - 1
        shared = _shared(sequences[group[-1]], sequences[number]) if group else 0
        # Every sequence begins with the same token, which is not what makes two alike.
        if group and (shared - 1 < SHARED * length or size + length - shared > TREE_TOKENS):
            rows.append(_tree(sequences, group, first))
            group, size, shared = [], 0, 0
        group.append(number)
        size += length - shared
    return [*rows, _tree(sequences, group, first)] if group else rows


def _tree(sequences: Mapping[int, np.ndarray], group: Sequence[int], first: Mapping[int, int]) -> Row:
    """Return the row of the sequences of a group, each of which follows the one that it shares the most with."""
    if len(group) == 1:
        return single_row(sequences[group[0]], first=first[group[0]], owner=group[0])
    tokens: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    sources, targets, owners = [], [], []
    path, before, count = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0
    for number in group:
        sequence = sequences[number]
        shared = _shared(before, sequence)
        own = sequence[shared:-1]
        path = np.concatenate([path[:shared], np.arange(count, count + len(own))])
        tokens.append(own)
        paths.append(path)
        sources.append(path[first[number] :])
        targets.append(sequence[first[number] + 1 :])
        owners.append(np.full(len(sources[-1]), number))
        before, count = sequence, count + len(own)
    positions, visible = np.zeros(count, dtype=np.int64), np.zeros((count, count), dtype=bool)
    for path in paths:
        positions[path] = np.arange(len(path))
        visible[np.ix_(path, path)] |= np.tri(len(path), dtype=bool)
    return Row(
        np.concatenate(tokens),
        positions,
        visible,
        np.concatenate(sources),
        np.concatenate(targets),
        np.concatenate(owners),
    )


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many tokens two sequences begin with alike, their last ones aside, which are read by nobody."""
    length = max(0, min(len(one), len(other)) - 1)
    apart = np.flatnonzero(one[:length] != other[:length])
    return int(apart[0]) if len(apart) else length
