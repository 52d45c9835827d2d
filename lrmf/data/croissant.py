"""A snapshot's description in Croissant 1.0, with RAI fields, as data catalogues read it."""

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from pandas.api import types

from .responses import observed, row_blocks
from .schema import KEYS, RESPONSES_FILE, TABLE_FILES

CROISSANT_FILE = "croissant.json"
# The terms that every Croissant description defines alike, as its specification gives them.
_CONTEXT = json.loads(Path(__file__).with_name("croissant_context.json").read_text())
_TYPES = (
    (types.is_bool_dtype, "sc:Boolean"),
    (types.is_integer_dtype, "sc:Integer"),
    (types.is_float_dtype, "sc:Float"),
)


def describe_as_croissant(
    manifest: dict, files: dict[str, dict], tables: dict[str, pd.DataFrame], responses: np.ndarray
) -> dict:
    """Describe a snapshot: its files, the columns of its tables, and what the manifest knows.

    Parameters
    ----------
    manifest : content of ``snapshot.json``
    files : bytes and sha256 of each file, by name
    tables : models, items and lineage
    responses : ndarray of shape (n_models, n_items)

    Returns
    -------
    dict
        JSON-LD of a ``Dataset`` that conforms to Croissant 1.0 and its RAI vocabulary 1.0. It
        depends on the arguments only.
    """
    n_observed = sum(int(observed(block).sum()) for _, block in row_blocks(responses))
    share = 1 - n_observed / max(1, responses.size)
    simulated = manifest["source"] == "simulated"
    chosen = "drawn from a simulation" if simulated else "those that somebody chose to evaluate"
    stated = {
        "url": manifest.get("endpoint"),
        "license": manifest.get("license") or ("Apache-2.0" if simulated else None),
        "citeAs": manifest.get("cite_as"),
        "datePublished": str(manifest.get("crawled_at") or "")[:10],
        "rai:dataCollectionTimeframe": manifest.get("crawled_at"),
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": manifest["name"],
        "description": manifest["note"] or f"Snapshot of benchmark results: {manifest['source']}",
        "version": f"{manifest['schema_version']}.0.0",
        **{key: value for key, value in stated.items() if value},
        "rai:dataCollection": f"Source: {manifest['source']}. {manifest['note']}".strip(),
        "rai:dataCollectionMissingData": f"{share:.1%} of the responses are missing: "
        "255 among answers, NaN among proportions.",
        "rai:dataBiases": f"The models are {chosen}; their lineage is what was declared.",
        "rai:dataLimitations": "A model without a known parent may have one; unknown is null.",
        "rai:dataUseCases": "Forecasting benchmark scores of language models.",
        "distribution": [_file(name, entry) for name, entry in files.items()],
        "recordSet": [_records(table, frame) for table, frame in tables.items()],
    }


def _file(name: str, entry: dict) -> dict:
    is_matrix = name == RESPONSES_FILE
    about = "Matrix of responses, models x items, in the order of the tables (NumPy)"
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": about if is_matrix else "Table",
        "contentUrl": name,
        "contentSize": f"{entry['bytes']} B",
        "encodingFormat": f"application/{'octet-stream' if is_matrix else 'x-parquet'}",
        "sha256": entry["sha256"],
    }


def _records(table: str, frame: pd.DataFrame) -> dict:
    """Record set of a table: one field a column."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{table}/{quote(str(column), safe='')}",
            "name": str(column),
            "dataType": next((name for holds, name in _TYPES if holds(frame[column])), "sc:Text"),
            "source": {
                "fileObject": {"@id": TABLE_FILES[table]},
                "extract": {"column": str(column)},
            },
        }
        for column in frame.columns
    ]
    key = [{"@id": f"{table}/{column}"} for column in KEYS[table]]
    return {"@type": "cr:RecordSet", "@id": table, "name": table, "key": key, "field": fields}
