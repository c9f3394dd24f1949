"""The order in which populations can be computed: one after the other, and together where they drive each other."""

from __future__ import annotations

from collections.abc import Sequence

from engram.snn.loihi.network import Population


def groups(populations: Sequence[Population]) -> list[tuple[Population, ...]]:
    """Populations that are computed together, sources first; in a group of several, or alone, `recurrent` tells which.

    Source: Tarjan 1972, "Depth-first search and linear graph algorithms": strongly connected components.
    """
    named = {each.name: each for each in populations}
    order = list(named)
    number, lowest, stack, found = dict[str, int](), dict[str, int](), list[str](), list[tuple[Population, ...]]()
    for root in order:
        if root in number:
            continue
        path = [(root, iter(sources(named[root])))]
        number[root] = lowest[root] = len(number)
        stack.append(root)
        while path:
            name, rest = path[-1]
            source = next((each for each in rest if each in named), None)
            if source is not None:
                if source not in number:
                    number[source] = lowest[source] = len(number)
                    stack.append(source)
                    path.append((source, iter(sources(named[source]))))
                elif source in stack:
                    lowest[name] = min(lowest[name], number[source])
                continue
            path.pop()
            if path:
                lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[name])
            if lowest[name] == number[name]:
                place = stack.index(name)
                found.append(tuple(named[each] for each in sorted(stack[place:], key=order.index)))
                del stack[place:]
    return found


def recurrent(group: Sequence[Population]) -> bool:
    """Whether a group of `groups` needs to go step by step."""
    return len(group) > 1 or group[0].name in sources(group[0])


def sources(population: Population) -> list[str]:
    """Names of what reaches a population."""
    return [one.source for one in population.synapses]
