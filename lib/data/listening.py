"""Last.fm: which artists 1,892 users listened to (HetRec 2011), in the form used by LightGCN's authors.

Play counts are ignored: a pair is a pair.
"""

from __future__ import annotations

import numpy as np

from lib.data.feedback import Feedback, split_pairs
from lib.data.sets import find_file

__all__ = ["lastfm"]

FILES = ("data1.txt", "test1.txt")


def lastfm(seed: int, n_users: int = 2000, n_items: int = 5000, min_count: int = 5) -> Feedback:
    """The pairs of the most popular artists and their most active listeners, split 70/10/20 anew for each seed.

    Args:
        seed: of the split; users, items and the sizes of the parts do not depend on it.
        n_users: at most so many users, those with most pairs.
        n_items: at most so many artists, those with most listeners.
        min_count: users with fewer pairs (among these artists) are left out; at least 3.

    Raises:
        ValueError: `min_count` below 3.
        DataUnavailable: the files are missing and cannot be downloaded.
        DamagedFile: what was downloaded has another hash.
    """
    if min_count < 3:
        raise ValueError(f"min_count must be at least 3, got {min_count}")
    pairs = np.concatenate([np.loadtxt(find_file("lastfm", name), usecols=(0, 1), dtype=np.float64) for name in FILES])
    pairs = np.unique(pairs.astype(np.int64), axis=0)
    listeners = np.bincount(pairs[:, 1])
    pairs = pairs[np.isin(pairs[:, 1], np.argsort(-listeners, kind="stable")[:n_items])]
    activity = np.bincount(pairs[:, 0])
    users = np.argsort(-activity, kind="stable")[:n_users]
    pairs = pairs[np.isin(pairs[:, 0], users[activity[users] >= min_count])]
    ids, columns = zip(*(np.unique(column, return_inverse=True) for column in pairs.T), strict=True)
    train, val, test = split_pairs(np.stack(columns, axis=1), seed)
    return Feedback(train, val, test, len(ids[0]), len(ids[1]), np.empty((0, 0), np.float32))
