"""Which part of a graph may become int8: found from the graph, so it holds for every detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def network_part(children: Mapping[str, Iterable[str]], layers: Iterable[str]) -> tuple[set[str], set[str]]:
    """The nodes up to and with the last layers, and the last layers themselves: those that no layer follows.

    Args:
        children: the nodes that read a node's outputs, for every node of the graph.
        layers: the nodes with weights.
    """
    order = _reversed_order(children)
    known = set(layers)
    before: set[str] = set()  # nodes that a layer follows
    for node in order:  # children come first
        if any(child in before or child in known for child in children[node]):
            before.add(node)
    last = known - before
    return before | last, last


def _reversed_order(children: Mapping[str, Iterable[str]]) -> list[str]:
    """The nodes, each after all that read it. Without recursion: graphs are deep."""
    done: list[str] = []
    seen: set[str] = set()
    for start in children:
        stack = [(start, iter(children[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            following = next((child for child in rest if child not in seen), None)
            if following is None:
                done.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(children[following])))
    return done
