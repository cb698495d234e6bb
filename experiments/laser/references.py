"""Two other structures to retrieve from, in plain Python: LASER's tries of n-grams, and a suffix automaton."""

from collections import Counter
from collections.abc import Iterable, Sequence


class NGramTrie:
    """A tree of continuations for every token, as in LASER: every suffix of a text up to `depth` tokens, counted."""

    def __init__(self, texts: Iterable[Sequence[int]], depth: int = 13) -> None:
        self._depth = depth
        self._root: dict[int, _Node] = {}
        for text in texts:
            self._add(text)

    def _add(self, text: Sequence[int]) -> None:
        for start in range(len(text)):
            children = self._root
            for token in text[start : start + self._depth]:
                node = children.setdefault(token, _Node())
                node.count += 1
                children = node.children

    def find(self, context: Sequence[int], longest: int = 2) -> tuple[int, Counter[int]]:
        """The longest known context of at most `longest` tokens, and how often each token followed it."""
        for length in range(min(longest, len(context)), 0, -1):
            children = self._root
            for token in context[-length:]:
                node = children.get(token)
                children = {} if node is None else node.children
            if children:
                return length, Counter({token: node.count for token, node in children.items()})
        return 0, Counter()


class _Node:
    __slots__ = ("children", "count")

    def __init__(self) -> None:
        self.count = 0
        self.children: dict[int, _Node] = {}


class SuffixAutomaton:
    """The smallest automaton of all substrings (Blumer et al. 1985), built text by text, with counted occurrences."""

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._link, self._length, self._count = [-1], [0], [0]
        for text in texts:
            last = 0
            for token in text:
                last = self._extend(last, token)
        for state in sorted(range(1, len(self._next)), key=lambda state: -self._length[state]):
            self._count[self._link[state]] += self._count[state]

    def _extend(self, last: int, token: int) -> int:
        if token in self._next[last]:
            known = self._next[last][token]
            found = known if self._length[known] == self._length[last] + 1 else self._split(last, token, known)
            self._count[found] += 1
            return found
        state = self._new({}, -1, self._length[last] + 1, 1)
        while last >= 0 and token not in self._next[last]:
            self._next[last][token] = state
            last = self._link[last]
        if last < 0:
            self._link[state] = 0
        else:
            known = self._next[last][token]
            same = self._length[known] == self._length[last] + 1
            self._link[state] = known if same else self._split(last, token, known)
        return state

    def _split(self, last: int, token: int, known: int) -> int:
        clone = self._new(dict(self._next[known]), self._link[known], self._length[last] + 1, 0)
        self._link[known] = clone
        while last >= 0 and self._next[last].get(token) == known:
            self._next[last][token] = clone
            last = self._link[last]
        return clone

    def _new(self, following: dict[int, int], link: int, length: int, count: int) -> int:
        for values, value in ((self._link, link), (self._length, length), (self._count, count)):
            values.append(value)
        self._next.append(following)
        return len(self._next) - 1

    def find(self, context: Sequence[int], longest: int) -> tuple[int, Counter[int]]:
        """The longest known context of at most `longest` tokens that something follows, and how often what did."""
        for length in range(min(longest, len(context)), 0, -1):
            state: int | None = 0
            for token in context[-length:]:
                state = None if state is None else self._next[state].get(token)
            if state is not None and self._next[state]:
                return length, Counter({token: self._count[after] for token, after in self._next[state].items()})
        return 0, Counter()
