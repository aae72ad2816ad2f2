"""Tables of columns for the images: what is read, and what is refused in which words."""

import io

import numpy as np
import pytest

from iwae.data import columns
from iwae.data.columns import ColumnError

pa = pytest.importorskip("pyarrow", reason="requirements.txt")
pq = pytest.importorskip("pyarrow.parquet", reason="requirements.txt")

GOOD = "index,score,kind,on,when\n3,0.5,cat,true,2020-01-01\n0,-2,dog,false,2020-01-01\n4,,,true,2020-01-01\n"


def parquet(**values) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(values), stream)
    return stream.getvalue()


def test_numbers_and_classes_are_aligned_with_the_images():
    found = columns.read(GOOD.encode(), "a.csv", 5)
    assert list(found) == ["score", "kind", "on"]
    np.testing.assert_array_equal(found["score"].values, [-2, np.nan, np.nan, 0.5, np.nan])
    assert found["kind"].names == ("cat", "dog")
    assert columns.as_text(found["kind"], np.array([0, 1, 3])) == ["dog", None, "cat"]
    assert columns.as_text(found["on"], np.arange(5)) == ["false", None, None, "true", "true"]
    assert columns.as_text(found["score"], np.array([3, 4])) == [0.5, None]


def test_parquet():
    content = parquet(
        index=[1, 0], score=np.float32([1.5, 2.5]), kind=pa.array(["b", "a"]).dictionary_encode(), vector=[[1], [2]]
    )
    found = columns.read(content, "A.PARQUET", 3)
    np.testing.assert_array_equal(found["score"].values, [2.5, 1.5, np.nan])
    assert list(found) == ["score", "kind"] and columns.as_text(found["kind"], np.arange(3)) == ["a", "b", None]


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("index,a\n0,1\n", "a.xlsx", "“a.xlsx” is neither CSV nor Parquet (.csv, .parquet)."),
        ("number,a\n0,1\n", "a.csv", "“a.csv” has no column “index”, only number, a."),
        ("index,a\n0,1\n9,1\n", "a.csv", "“a.csv”: index 9 is not a test image; there are 0 to 4."),
        ("index,a\n-1,1\n", "a.csv", "“a.csv”: index -1 is not a test image"),
        ("index,a\n2,1\n2,1\n", "a.csv", "“a.csv”: index 2 is there 2 times; once is allowed."),
        ("index,a\n0.5,1\n", "a.csv", "column “index” must hold whole numbers"),
        ("index,a\nx,1\n", "a.csv", "column “index” must hold whole numbers"),
        ("index,a\n,1\n1,2\n", "a.csv", "column “index” must hold whole numbers"),
        ("index,a\n2020-01-01,1\n", "a.csv", "whole numbers in its column “index”, not date32[day]"),
        ("index,index,a\n0,1,2\n", "a.csv", "“a.csv” has several columns called “index”."),
        (f"index,{'a' * 50},{'a' * 60}\n0,1,2\n", "a.csv", "has several columns called “aaa"),
        (f"index,a\n{2**60 + 1},1\n", "a.csv", "index 1152921504606846976 is not a test image"),
        ("index\n1\n", "a.csv", "has no column beside “index” of numbers"),
        ("index,a\n1\n2,3,4\n", "a.csv", "“a.csv” cannot be read as CSV ("),
        ("", "a.csv", "“a.csv” cannot be read as CSV ("),
        ("index,a\n0,1\n", "a.parquet", "“a.parquet” cannot be read as PARQUET ("),
        ("index," + ",".join(f"c{n}" for n in range(300)) + "\n", "a.csv", "301 columns; at most 200,000 and 300"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence(content, name, told):
    with pytest.raises(ColumnError) as error:
        columns.read(content.encode(), name, 5)
    assert told in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)


def test_whole_numbers_beyond_those_of_float64_are_the_nearest_ones():
    found = columns.read(
        parquet(index=pa.array([0, 1], pa.uint64()), big=pa.array([2**53 + 1, 2**62 + 1])), "a.parquet", 2
    )
    assert found["big"].values.tolist() == [2.0**53, 2.0**62]


def test_a_message_stays_short():
    with pytest.raises(ColumnError) as error:
        columns.read(",".join(f"a long name {n}" for n in range(290)).encode() + b"\n", "a.csv", 5)
    assert len(str(error.value)) < 300


def test_sizes_are_bounded(monkeypatch):
    with pytest.raises(ColumnError, match=r"has 10.0 MB; at most 10 MB are read"):
        columns.read(b"0" * (columns.MAX_BYTES + 1), "a.csv", 5)
    texts = [f"t{n}" for n in range(21)]
    with pytest.raises(ColumnError, match="at most 20 different texts"):
        columns.read(parquet(index=range(21), name=texts), "a.parquet", 60)


def test_a_small_file_of_a_huge_table_is_refused():
    """Rows that are all alike: 10 million in kilobytes, and texts that unpack to gigabytes."""
    rows = parquet(index=np.zeros(10_000_000, np.int8))
    assert len(rows) < 100_000
    with pytest.raises(ColumnError, match="10,000,000 rows; at most 200,000 are read"):
        columns.read(rows, "a.parquet", 5)
    text = parquet(index=np.arange(6_000), name=["x" * 100_000] * 6_000)
    assert len(text) < columns.MAX_BYTES
    with pytest.raises(ColumnError, match="cannot be read"):
        columns.read(text, "a.parquet", 30_000)
