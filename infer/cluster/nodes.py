"""What run.json says of the nodes that took part."""

import logging
from typing import Any

from infer.cluster.actors import ActorState
from infer.cluster.places import Place
from infer.cluster.work import Hello

LOG = logging.getLogger("lympho")


class NodeRecords:
    """A record a node and rounding: actors that round in two ways, as two kinds of GPU may, are two."""

    def __init__(self, numerics: str) -> None:
        """Begin without a node.

        Args:
            numerics: digest of how this process rounds.
        """
        self._numerics = numerics
        self._records: dict[tuple[str, str], dict[str, Any]] = {}

    def greeted(self, state: ActorState, hello: Hello) -> list[str]:
        """An actor has started. Returns what the run's record must keep of it, also if the run is stopped."""
        key, same = (state.place.node, hello.numerics), hello.numerics == self._numerics
        new = key not in self._records
        if new:
            self._records[key] = _record(state.place, hello, same)
            LOG.info(
                "%s: %s, %s, %d processors an actor", state.name, hello.provider, hello.precision, hello.processors
            )
        self._records[key]["actors_started"] += 1
        return [] if same else ["its networks round differently than the driver's: last digits may differ"]

    def finished(self, state: ActorState) -> None:
        """An actor has finished a patient."""
        if state.hello:
            self._records[state.place.node, state.hello.numerics]["patients"] += 1

    def all(self) -> list[dict[str, Any]]:
        """For run.json."""
        return list(self._records.values())


def _record(place: Place, hello: Hello, same: bool) -> dict[str, Any]:
    return {
        "machine": hello.machine,
        "node": place.node,
        "provider": hello.provider,
        "note": hello.note,
        "precision": hello.precision,
        "processors_an_actor": hello.processors,
        "numerics": hello.numerics,
        "same_rounding": same,
        "actors_started": 0,
        "patients": 0,
    }
