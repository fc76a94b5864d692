"""Ranks engines for a request, for the API's router and for workers. Plain Python."""

import hashlib
from collections.abc import Iterable, Mapping

from core.records.engines import LivingEngine
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef


def in_order(
    engines: Iterable[LivingEngine],
    base: BaseModelSpec,
    adapter: BundleRef | None,
    in_flight: Mapping[str, int],
) -> list[LivingEngine]:
    """Return the engines, the most suitable one first.

    First, no other base should be evicted, and the request should not wait in a queue. Then engines
    with its adapter are preferred, then those with its base, then those with less load. Ties are
    broken by a hash that is the same in every process, so that requests with a common prefix reach
    the same cache. `in_flight` is the number of sequences that this process has sent to each
    address, because heartbeats are seconds old.
    """

    def rank(engine: LivingEngine) -> tuple[bool, bool, bool, bool, float, bytes]:
        report = engine.report
        has_base = base in report.bases
        has_bundle = has_base if adapter is None else adapter.sha256 in report.bundles
        is_resident = has_base or has_bundle
        load = max(report.running + report.waiting, in_flight.get(report.url, 0))
        return (
            not is_resident and len(report.bases) >= report.max_bases,
            load >= report.max_running,
            not has_bundle,
            not has_base,
            load / report.max_running,
            _weight(report.url, base, adapter),
        )

    return sorted(engines, key=rank)


def _weight(url: str, base: BaseModelSpec, adapter: BundleRef | None) -> bytes:
    """Rendezvous hashing: if an engine is added or removed, only its requests move."""
    what = "\n".join((url, base.model_dump_json(), "" if adapter is None else adapter.sha256))
    return hashlib.blake2b(what.encode(), digest_size=8).digest()
