"""STUB, replaced by the merge."""


def next_seeds(now: int, most: int) -> int:
    return min(most, max(now + 1, -(-now * 3 // 2)))


def level_at(look: int) -> float:
    return 0.05 / ((look + 1) * (look + 2))


def behind(means, deviations, counts, *, cells, level, mode):
    return [False for _ in means]
