"""What a job opens before anything is read."""

import pytest

from edgedistill import job
from edgedistill.builder.opening import open_job
from edgedistill.errors import JobError


def test_an_empty_name_of_the_output_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match=r"run\.out is empty"):
        open_job(job.named(target="phone", out=" ", store=str(tmp_path / "store")))
    assert open_job(job.named(target="phone", store=str(tmp_path / "store"))).out.name == "phone"
