"""How fuzz tests run: the number of inputs, and how texts are damaged.

LRMF_FUZZ=10000 sets the number of inputs of every fuzz test; without it each has its own.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# What people, editors and attackers put into files.
ODDITIES = (
    *(
        "\ufeff",
        "\u200b",
        "\u2028",
        "\x00",
        "\u202e",
        "\ud800",
        "\r\n",
        "\t",
        "---\n",
        "...\n",
        "~",
    ),
    *(
        "<<: *a\n",
        "&a ",
        "*a",
        "!!python/object:os.system ",
        "? ",
        "|\n",
        "%YAML 9\n",
        "0x",
        "1e999",
    ),
    *(
        "NaN",
        "-Infinity",
        "true",
        "null",
        "2024-99-99",
        "1" * 5000,
        "[" * 300,
        "{a: " * 100,
        '"',
        "'",
    ),
    *(
        "```",
        "~~~~",
        "`",
        "<<<<<<<",
        "\\u0000",
        "../",
        "/",
        "@main",
        "+lora",
        "models--a--b/",
        "%00",
    ),
)


def fuzz(n_inputs: int):
    """Settings of a fuzz test: the same inputs every time; one that takes 10 s counts as a hang."""
    return settings(
        max_examples=int(os.environ.get("LRMF_FUZZ", n_inputs)),
        deadline=10_000,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw, seeds) -> bytes:
    """One of the texts with up to five cuts, repeats, insertions or damaged bytes."""
    content = draw(st.sampled_from(list(seeds)))
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    for _ in range(draw(st.integers(0, 5))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        piece = draw(
            st.one_of(
                st.just(b""),
                st.just(content[start:end] * 2),
                st.sampled_from(ODDITIES).map(lambda text: text.encode("utf-8", "surrogatepass")),
                st.binary(max_size=6),
                st.text(max_size=6).map(str.encode),
            )
        )
        content = content[:start] + piece + content[end if draw(st.booleans()) else start :]
    return content


def json_values(*leaves):
    """Any JSON value, with the given values among its leaves."""
    leaf = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(),
        st.text(max_size=8),
        *([st.sampled_from(leaves)] if leaves else []),
    )
    keys = st.sampled_from(["id", "name", "model", "models", "relation", "total", "x", ""])
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )
