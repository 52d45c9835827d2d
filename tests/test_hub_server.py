"""The server for tests is a Hub to the official client as well."""

from pathlib import Path

import pytest
from hub_server import TABLE, TABLE_PATH, Hub, serve
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from lrmf.hub.ancestry import EXPAND


@pytest.fixture
def hub():
    hub = Hub(page_size=2)
    for number in range(5):
        hub.add_model(f"lab/m{number}", baseModels={"relation": "merge", "models": []})
    hub.renamed["old/m"] = "lab/m1"
    hub.add_file("lab/m1", "README.md", b"# m1")
    hub.add_file(f"datasets/{TABLE}", TABLE_PATH, b"x" * 5000)
    return hub


def test_the_official_client_understands_it(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serve(hub) as served:
        api = HfApi(endpoint=served.url, token="hf_x")
        info = api.model_info("old/m", expand=EXPAND)
        assert (info.id, info.base_models["relation"], info.gated) == ("lab/m1", "merge", False)
        assert [row.id for row in api.list_models(author="lab")] == [f"lab/m{n}" for n in range(5)]
        assert api.dataset_info(TABLE).sha == hub.datasets[TABLE]["sha"]
        (row,) = [
            r
            for r in api.list_repo_tree(TABLE, repo_type="dataset", recursive=True)
            if "." in r.path
        ]
        assert (row.path, row.size) == (TABLE_PATH, 5000) and row.lfs.sha256
        options = {"cache_dir": tmp_path, "revision": "0" * 40}
        small = api.hf_hub_download("lab/m1", "README.md", **options)
        large = api.hf_hub_download(TABLE, TABLE_PATH, repo_type="dataset", **options)
        assert Path(small).read_bytes() == b"# m1"
        assert Path(large).read_bytes() == b"x" * 5000
        assert served.asked("storage:") and not served.record.leaked


def test_refusals_as_the_official_client_sees_them(hub):
    hub.closed = {"lab/m1"}
    with serve(hub) as served:
        api = HfApi(endpoint=served.url, token=False)
        with pytest.raises(HfHubHTTPError, match="401"):
            api.model_info("lab/nothing")
        with pytest.raises(GatedRepoError):
            api.hf_hub_download("lab/m1", "README.md")
