# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `holdfast metrics` prints, as monitoring systems read it.

Each text is read by two parsers of others, that of OpenMetrics and that of Prometheus's older
format, which node_exporter's textfile collector speaks; they have to agree.
"""

import subprocess

import lock_rig
import pytest
from waiting import wait_until

openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")
prometheus = pytest.importorskip("prometheus_client.parser")

HOLDFAST = lock_rig.build_dir() / "holdfast"
# The only types of the older format: there, any other is an error for the whole file.
TYPES = {"counter", "gauge", "histogram"}


class Scrape:
    """The samples of one text."""

    def __init__(self, text):
        assert text.endswith("\n# EOF\n")
        self.text = text
        self.families = {family.name: family
                         for family in openmetrics.text_string_to_metric_families(text)}
        self.samples = {}
        for family in self.families.values():
            assert family.name.startswith("holdfast_") and family.type in TYPES, family
            assert family.documentation, family.name
            for sample in family.samples:
                assert sample.timestamp is None, sample
                self._add(self.samples, sample)
        old = {}
        for family in prometheus.text_string_to_metric_families(text):
            for sample in family.samples:
                self._add(old, sample)
        assert old == self.samples

    @staticmethod
    def _add(samples, sample):
        key = sample.name, frozenset(sample.labels.items())
        assert key not in samples, f"{key} is there twice"
        samples[key] = sample.value

    def __call__(self, name, **labels):
        """The value of one sample, or None."""
        return self.samples.get((f"holdfast_{name}", frozenset(labels.items())))

    def labels(self, name, label):
        """The values that a label has in the samples of one name."""
        return {dict(labels).get(label) for found, labels in self.samples
                if found == f"holdfast_{name}"}

    def total(self, name, **labels):
        """The sum of all samples of one name that have these labels."""
        return sum(value for (found, found_labels), value in self.samples.items()
                   if found == f"holdfast_{name}" and labels.items() <= dict(found_labels).items())


def scrape(daemon):
    """What the daemon counts now."""
    result = subprocess.run([HOLDFAST, "--socket", daemon.socket, "metrics"], check=True,
                            capture_output=True, timeout=60)
    return Scrape(result.stdout.decode())


def wait_scrape(daemon, condition, what):
    """Wait until the daemon's counters are such that condition(scrape) is true; that scrape."""
    def look():
        seen = scrape(daemon)
        return seen if condition(seen) else None
    return wait_until(look, what)
