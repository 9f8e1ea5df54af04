from __future__ import annotations

from gateway.pure.lru import Lru


def test_the_entry_unused_for_longest_makes_room() -> None:
    cache: Lru[str, int] = Lru(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_what_is_dropped_is_gone() -> None:
    cache: Lru[str, int] = Lru(2)
    cache.put("a", 1)
    cache.drop("a")
    cache.drop("b")
    assert (cache.get("a"), len(cache)) == (None, 0)


def test_it_never_holds_more_than_its_size() -> None:
    cache: Lru[int, int] = Lru(10)
    for number in range(1, 1000):
        cache.put(number % 37, number)
        assert len(cache) <= 10


def test_putting_a_known_key_replaces_its_value_and_costs_no_other() -> None:
    cache: Lru[str, int] = Lru(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    assert (cache.get("a"), cache.get("b")) == (3, 2)
