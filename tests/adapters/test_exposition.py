"""The text that Prometheus reads, put together from several processes."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.exposition import dump_families, exposition, load_families, process_families
from gateway.pure.metrics import Metric
from gateway.pure.series import Series


def test_each_process_has_its_own_figures_under_its_name() -> None:
    dumped = json.loads(json.dumps(dump_families(process_families())))
    text = exposition(Series(), load_families([("1", dumped), ("2", dumped)]))[0].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    memory = families["process_resident_memory_bytes"]
    assert memory.type == "gauge"
    assert [sample.labels for sample in memory.samples] == [{"worker": "1"}, {"worker": "2"}]
    assert all(sample.value > 1e6 for sample in memory.samples)
    assert families["process_cpu_seconds"].type == "counter"
    assert {sample.labels["worker"] for sample in families["python_gc_collections"].samples} == {"1", "2"}


def test_a_family_without_labels_is_there_before_anything_was_counted() -> None:
    text = exposition(Series())[0].decode()
    assert "\npangate_store_commits_total 0.0\n" in text
    assert f"# HELP pangate_requests_total {Metric.REQUESTS.help}\n" in text
