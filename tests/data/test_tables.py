"""Tables: which column is the target and what it is, headers, numbers as they are written, and names at prediction."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpubp.data import load, stream_inputs
from gpubp.data.inputs import Inputs, Scaling
from gpubp.data.tables import TableFormat
from gpubp.data.targets import CLASSES, VALUES, Targets
from gpubp.errors import DataError, UsageError
from gpubp.functions import ACTIVATIONS, LOSSES


def table(header: str, *columns, repeat: int = 10, path: str | Path = "t.csv", mark: str = ",") -> Path:
    """A file with these columns of cells, again and again."""
    rows = [mark.join(map(str, row)) for row in zip(*columns, strict=True)] * repeat
    Path(path).write_text("\n".join([*([header] if header else []), *rows, ""]), encoding="utf-8")
    return Path(path)


def whole(data) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and targets, in the order of the first column."""
    inputs = np.concatenate([data.train.inputs, data.test.inputs])
    order = inputs[:, 0].argsort(kind="stable")
    return inputs[order], np.concatenate([data.train.targets, data.test.targets])[order]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(output: str, loss: str, outputs: int) -> Targets:
    return Targets.of(ACTIVATIONS[output], LOSSES[loss], outputs)


# Which column is the target


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("a,b,c", 2), ("label,b,c", 0), ("a,label,c", 1), ("a,Target,c", 1), ("y,b,c", 0), ("a,b,Class", 2),
        ("classes,ys,c", 2), ("", 2),
    ],
)  # fmt: skip
def test_the_target_is_found_by_its_name_or_is_the_last_column(header, target):
    columns = [1, 3], [5, 6], [8, 9]
    data = load(table(header, *columns), targets="values")
    assert sorted(set(whole(data)[1])) == columns[target]
    assert data.n_in == 2
    assert data.feature_names == (
        tuple(n for i, n in enumerate(header.split(",")) if i != target) if header else None
    )


@pytest.mark.parametrize(
    ("header", "could_be"),
    [
        ("X,Y,area", "'Y' or 'area'"), ("a,class,c", "'class' or 'c'"), ("label,b,y", "'label' or 'y'"),
        ("target,label,c", "'target' or 'label' or 'c'"), ("y,b,class", "'y' or 'class'"),
    ],
)  # fmt: skip
def test_a_target_that_could_be_two_columns_is_asked_for(header, could_be):
    path = table(header, [1, 2], [5, 6], [8, 9])
    with pytest.raises(UsageError, match=rf"the target could be {could_be}; .*--target NAME"):
        load(path)
    for number, name in enumerate(header.split(","), start=1):
        for asked in (name, str(number), number):
            assert load(path, target=asked, targets="values").target.startswith(repr(name))


@pytest.mark.parametrize("asked", ["d", "4", "0", "-1"])
def test_a_target_that_is_not_there_is_refused_with_what_is(asked):
    with pytest.raises(UsageError, match=f"no column '{asked}' to be the target; there are a, b, c"):
        load(table("a,b,c", [1, 2], [5, 6], [8, 9]), target=asked)
    with pytest.raises(UsageError, match=f"no column '{asked}' .* numbered 1 to 3"):
        load(table("", [1, 2], [5, 6], [8, 9]), target=asked)


@pytest.mark.parametrize("header", ["", "a,b,c\n"])
@pytest.mark.parametrize("targets", [None, CLASSES, VALUES])
def test_a_target_with_one_value_is_refused(header, targets):
    path = table(header.strip(), [0, 1, 2] * 2, range(6), [7] * 6)
    first = (
        "the first column looks like labels: --target 1" if not header else "--target names another column"
    )
    with pytest.raises(DataError, match=rf"column.* is '7' in every row.*{first}"):
        load(path, targets=targets)
    assert load(path, target=1).classes == 3


def test_labels_before_pixels_of_a_table_without_names_are_asked_for():
    """Some pixel of the last column is drawn on: not one value, but no classes either."""
    path = table("", [0, 1, 2, 1, 2, 0], [0, 200, 255, 3, 0, 9], [0, 0, 0, 17, 0, 255])
    with pytest.raises(UsageError, match=r"the first or the last column: .*--target 1, or --target 3"):
        load(path)
    assert load(path, target=1).classes == 3
    # Counts before a last column of 0 and 1 are what they seem.
    assert (
        load(table("", [0, 1, 2, 1, 2, 0], [5, 6, 7, 8, 9, 1], [0, 1, 0, 1, 1, 1])).target
        == "column 3 of a table without header"
    )


# What the target is


@pytest.mark.parametrize(
    ("output", "loss", "outputs", "kind"),
    [
        ("identity", "quadratic", 1, VALUES), ("relu", "squared_error", 1, VALUES), ("tanh", "quadratic", 1, VALUES),
        ("identity", "quadratic", 3, CLASSES), ("softmax", "cross_entropy", 3, CLASSES),
        ("sigmoid", "binary_cross_entropy", 1, CLASSES), ("sigmoid", "quadratic", 3, CLASSES),
        ("sigmoid", "quadratic", 1, None),
    ],
)  # fmt: skip
def test_loss_and_output_decide_between_classes_and_values(output, loss, outputs, kind):
    assert of(output, loss, outputs).kind == kind


def test_whole_numbers_are_values_where_values_are_fitted():
    prices = [140, 110, 160, 110]
    data = load(table("a,price", range(4), prices), targets=of("identity", "quadratic", 1))
    inputs, targets = whole(data)
    assert data.classes is data.class_names is None
    assert targets.tolist() == [prices[int(i)] for i in inputs[:, 0]]
    assert "target 'price', the last column: values from 110 to 160" in data.summary()
    negative = load(table("a,b", range(4), [-3, 0, 2, 7]), targets=of("identity", "quadratic", 1))
    assert negative.train.targets.min() == -3


@pytest.mark.parametrize(("cells", "says"), [(["red", "blue"], "'red' is not a number"), (["1", "x"], "'x'")])
def test_words_are_no_values(cells, says):
    with pytest.raises(DataError, match=rf"column 2 \(b\): the target {says}.* fit values; classes take"):
        load(table("a,b", [1, 2], cells), targets=of("identity", "quadratic", 1))


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([0.5, 1.5, 2.5], "has numbers such as 0.5, which are no classes; values take --output identity"),
        (list(range(7, 27)), "20 different labels in 20 rows, which are hardly classes"),
        ([3, 4, 5, 6] * 5, r"4 classes \(3, 4, 5, 6\), too many for 3 outputs: .*--layers …-4"),
        (["01", "1"], "'01' and '1', which may be one number or two labels"),
        (["1", "1.0"], "'1' and '1.0', which may be one number"),
        (["inf", "1"], "such as inf"),
    ],
)
def test_what_can_be_no_classes_is_refused_with_what_to_do(cells, says):
    path = table("a,b", range(len(cells)), cells, repeat=1 if len(cells) == 20 else 5)
    with pytest.raises(DataError, match=f"t.csv: the target, 'b', the last column, .*{says}"):
        load(path, targets=of("softmax", "cross_entropy", 3))


@pytest.mark.parametrize(
    ("cells", "outputs", "names"),
    [
        ([1234567890123456789, 1234567890123456788], 2, ("1234567890123456788", "1234567890123456789")),
        (["01", "02", "10"], 3, ("01", "02", "10")),
        (["-1", "1"], 2, ("-1", "1")), (["-1", "1"], 1, ("-1", "1")), (["1", "2"], 1, ("1", "2")),
        (["10", "9", "8"], 3, ("8", "9", "10")),
        (["0.0", "1.0"], 2, ("0.0", "1.0")),
        (["True", "False"], 2, ("False", "True")), (["NA", "EU"], 2, ("EU", "NA")),
        (["b", " a "], 2, ("a", "b")), (['"x, y"', "z"], 2, ("x, y", "z")),
        ([0, 5, 9], 3, ("0", "5", "9")), ([0, 5, 9], 10, None), ([1, 2, 3], 4, None), ([2, 0, 1], 3, None),
        ([0, 1], 1, None), ([0, 1], None, None), ([0, 5], None, None), ([1, 2], None, ("1", "2")),
    ],
)  # fmt: skip
def test_labels_are_what_was_written(cells, outputs, names):
    data = load(table("a,label", range(len(cells)), cells), targets=Targets(CLASSES, outputs))
    assert data.class_names == names
    inputs, targets = whole(data)
    written = [str(cells[int(i)]).strip(' "') for i in inputs[:, 0]]
    assert [names[t] if names else str(t) for t in targets] == written


# Headers


def test_a_first_row_that_counts_the_columns_is_a_header():
    frame = pd.DataFrame(np.arange(60.0).reshape(20, 3) + 0.5)
    frame.to_csv("X.csv", index=False)
    frame.assign(label=[0, 1] * 10).to_csv("t.csv", index=False)
    with pytest.warns(UserWarning, match="first row, 0, 1, 2, is taken for a header; --no-header"):
        rows = list(stream_inputs("X.csv", 9, inputs=Inputs("numbers", ("a", "b", "c"))))
    assert np.concatenate(rows).tolist() == frame.to_numpy().tolist()
    assert len(np.concatenate(list(stream_inputs("X.csv", 9, table=TableFormat(header=False))))) == 21
    assert load("t.csv").feature_names == ("0", "1", "2")


def test_a_column_headed_0_is_asked_about():
    path = table("", [0, 3, 1], repeat=2)
    with pytest.raises(
        UsageError, match="its first row, 0, may be a header or data: say --header or --no-header"
    ):
        list(stream_inputs(path, 9))
    assert [len(next(stream_inputs(path, 9, table=TableFormat(header=said)))) for said in (True, False)] == [
        5,
        6,
    ]


@pytest.mark.parametrize(
    "first",
    [
        "2019,2020,2021", "1,2,3", "7,8,9", "400,410,420", "2020,2019,2018", "1990,2000,2010", "2020.0,2021.0,2022.0",
        "01,02,03", "1,2,4", "3,2,1", "-1,0,1", "2,0,1", "1,0,2",
    ],
)  # fmt: skip
def test_numbers_one_after_the_other_may_be_a_header(first):
    path = table(first, [1.5, 2.5], [3, 4], [5, 7])
    with pytest.raises(UsageError, match="may be a header or data"):
        load(path, targets="values")
    assert load(path, targets="values", header=True).feature_names == tuple(first.split(",")[:2])
    assert "target column 3 of a table without header" in load(path, targets="values", header=False).summary()


@pytest.mark.parametrize("first", ["5,3,4", "5.1,6,7", "3,3,4", "1,2", "400.5,410.5,420.5"])
def test_numbers_in_no_order_are_data(first):
    more = [[1.5, 2.5], [3, 4], [5, 7]][: first.count(",") + 1]
    assert "of a table without header" in load(table(first, *more), targets="values").summary()


def test_whole_numbers_that_rise_are_data_above_others():
    path = table("10,20,30", [1, 7], [3, 2], [5, 9])
    assert "of a table without header" in load(path, targets="values").summary()


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz"])
def test_a_table_may_be_called_text(name):
    raw = ("a\tb\tlabel\n" + "1\t2\tx\n3\t4\ty\n" * 10).encode()
    Path(name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert load(name, delimiter="tab").feature_names == ("a", "b")


@pytest.mark.parametrize("asked", ["KIND", "kind", "Kind"])
def test_a_target_is_found_whatever_its_capitals_if_there_is_one(asked):
    path = table("kind,a,b", ["x", "y"], [1, 2], [3, 4])
    assert load(path, target=asked).feature_names == ("a", "b")
    path = table("kInd,KIND,b", ["x", "y"], [1, 2], [3, 4])
    if asked != "KIND":
        with pytest.raises(UsageError, match=f"no column '{asked}'"):
            load(path, target=asked)


def test_decimal_commas_may_be_quoted_where_a_header_counts_the_columns():
    table("a,b,label", ['"1,5"', 2], ["3", '"4,25"'], ["x", "y"])
    data = load("t.csv", decimal=",")
    assert sorted(map(tuple, whole(data)[0].tolist()))[::10] == [(1.5, 3.0), (2.0, 4.25)]
    table("a,b,label", ["1,5", 2], ["3", '"4,25"'], ["x", "y"])
    with pytest.raises(DataError, match="line 2 has 4 columns, the first has 3"):
        load("t.csv", decimal=",")


@pytest.mark.parametrize("header", ["a,b,label,", ""])
def test_lines_that_end_in_a_delimiter(header):
    data = load(table(header, [1, 2], [5, 7], ["x", "y"], ["", ""]))
    assert (data.n_in, data.class_names) == (2, ("x", "y"))
    Path("t.csv").write_text("a,b,label,\n1,5,x,\n2,7,y,3\n")
    with pytest.raises(DataError, match=r"line 3 has 4 columns, the first has 4, the last without a name"):
        load("t.csv")


def test_rows_that_end_in_a_delimiter_below_a_header_that_does_not():
    table("a,b,label", [1, 2], [5, 7], ["x", "y"], ["", ""])
    data = load("t.csv")
    assert (data.feature_names, data.class_names) == (("a", "b"), ("x", "y"))
    assert next(stream_inputs("t.csv", 1, inputs=Inputs("numbers", ("b", "a")))).tolist() == [[5, 1]]


def test_row_names_of_r_are_left_out_aloud():
    table('"a","label"', ['"1"', '"2"', '"3"'], [5, 6, 7], ['"x"', '"y"', '"y"'])
    with pytest.warns(UserWarning, match="first column has no name, as an index has none, and is left out"):
        data = load("t.csv")
    assert (data.feature_names, set(whole(data)[0][:, 0])) == (("a",), {5.0, 6.0, 7.0})


def test_an_index_that_parquet_keeps_is_left_out_aloud():
    frame = pd.DataFrame(
        {"a": [1.5, 2.5] * 10, "label": ["x", "y"] * 10}, index=pd.Index(range(7, 27), name="house")
    )
    frame.sample(frac=1, random_state=0).to_parquet("t.parquet")
    with pytest.warns(UserWarning, match=r"the index that pandas kept \(house\) is left out"):
        data = load("t.parquet")
    assert (data.feature_names, data.class_names) == (("a",), ("x", "y"))
    for said in ({"delimiter": ";"}, {"header": True}, {"decimal": ","}):
        with pytest.raises(UsageError, match="a Parquet file has no delimiter"):
            load("t.parquet", **said)


@pytest.mark.parametrize("first", [0, 1, 17])
def test_a_column_that_counts_the_rows_is_pointed_at(first):
    frame = pd.DataFrame({"Id": range(first, first + 30), "a": np.arange(30) % 7, "label": [0, 1, 1] * 10})
    frame.to_csv("t.csv", index=False)
    with pytest.warns(UserWarning, match="t.csv: 'Id' counts the rows; leave it out unless"):
        assert load("t.csv").n_in == 2


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (range(1001, 1031), True), (range(1001, 1030), False), ([*range(1001, 1030), 1029], False),
        ([*range(1001, 1030), 1031], False), ([*range(28), 28.5, 29], False),
    ],
)  # fmt: skip
def test_a_column_that_counts_the_rows_in_another_order_is_pointed_at(ids, said, rng):
    frame = pd.DataFrame({"Id": rng.permutation(ids), "a": rng.normal(size=len(ids))})
    frame.to_csv("t.csv", index=False)
    says = "t.csv: 'Id' counts the rows, in another order; leave it out unless"
    with pytest.warns(UserWarning, match=says) if said else warnings.catch_warnings():
        warnings.simplefilter("always" if said else "error")
        load("t.csv", targets="values")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("t.csv", targets="values", target="Id")  # as a target it may be a rank


@pytest.mark.parametrize("first", ["5.1,3.5,y", "5,3,class", "1980,1990,label", "0"])
def test_a_first_row_that_may_be_either_is_asked_about(first):
    path = table(first, *([[1, 2, 3] for _ in first.split(",")[1:]] + [["n", "y", "m"]]))
    with pytest.raises(UsageError, match="may be a header or data: say --header or --no-header"):
        load(path) if "," in first else list(stream_inputs(table("0", [1, 2]), 9))
    if "," in first:
        assert len(load(path, header=True, target=first.split(",")[-1]).class_names) == 3


def test_a_header_of_numbers_is_noticed_by_its_target():
    path = table("1980,1990,kind", [1, 2], [3, 4], ["a", "b"])
    with pytest.raises(
        UsageError, match=r"'kind', the target in the first row, stands in no other: .* --header"
    ):
        load(path)
    assert load(path, header=True).feature_names == ("1980", "1990")
    with pytest.raises(
        DataError, match=r"line 1, column 1: 'where' is not a number; if the first row names .* --header"
    ):
        load(table("where,1990,kind", [1, 2], [3, 4], ["a", "b"]), header=False)


def test_a_header_of_numbers_that_the_network_knows_is_one():
    known = Inputs("numbers", ("1980", "1990"))
    rows = next(stream_inputs(table("1990,1980", [1, 2], [3, 4], repeat=1), 9, inputs=known))
    assert rows.tolist() == [[3, 1], [4, 2]]


@pytest.mark.parametrize("header", [True, False])
def test_whether_there_is_a_header_can_be_said(header):
    path = table("1980,1990,2000", [1, 2], [5, 6], [0, 1])
    data = load(path, header=header, targets=Targets(VALUES))
    assert (len(data.train) + len(data.test), data.feature_names) == (
        (20, ("1980", "1990")) if header else (21, None)
    )


def test_an_index_that_pandas_wrote_is_left_out_aloud():
    pd.DataFrame({"a": [1.5, 2.5] * 5, "label": [0, 1] * 5}).to_csv("t.csv")
    with pytest.warns(UserWarning, match="first column has no name, as an index has none, and is left out"):
        data = load("t.csv")
    assert (data.n_in, data.feature_names) == (1, ("a",))
    Path("t.csv").write_text(",a,label\n0,1,0\n1,x,1\n")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(DataError, match=r"line 3, column 2 \(a\): 'x'"),
    ):
        load("t.csv")


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match="two columns are called 'a'"):
        load(table("a,a,label", [1, 2], [5, 6], [0, 1]))


def test_a_header_that_numpy_wrote_is_one():
    np.savetxt("t.csv", np.array([[1, 2, 0], [3, 4, 1]] * 5), delimiter=",", header="a,b,label")
    assert load("t.csv").feature_names == ("a", "b")


# Numbers as they are written


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "a,b,label\n1.5,True,x\n-2e1,false,y\n", {}),
        ("t.tsv", "a\tb\tlabel\n1.5\t1\tx\n-20\t0\ty\n", {}),
        ("t.csv", "a;b;label\n1,5;1;x\n-20,0;0;y\n", {"delimiter": ";", "decimal": ","}),
        ("t.csv", "a\tb\tlabel\n1.5\t1\tx\n-20\t0\ty\n", {"delimiter": "tab"}),
        ("t.csv", "a|b|label\n1.5|1|x\n-20|0|y\n", {"delimiter": "|"}),
        ("t.csv", '"a", "b", "label"\r\n"1.5", " 1", "x"\r\n"-20", "0 ", "y"\r\n', {}),
        ("t.csv", "\ufeffa,b,label\n1.5,1,x\n\n-20,0,y\n", {}),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_table_in_any_dress_is_the_same(name, content, said, zipped):
    path, raw = Path(name + ".gz" * zipped), (content + content.partition("\n")[2] * 9).encode()
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    data = load(path, **said)
    inputs, targets = whole(data)
    assert inputs.tolist() == [[-20, 0]] * 10 + [[1.5, 1]] * 10
    assert targets.tolist() == [1] * 10 + [0] * 10
    assert (data.name, data.feature_names, data.class_names) == ("t", ("a", "b"), ("x", "y"))


def test_parquet_is_read_like_csv():
    frame = pd.DataFrame({"a": [1.5, -20.0] * 10, "b": [True, False] * 10, "label": ["x", "y"] * 10})
    frame.to_parquet("t.parquet")
    frame.to_csv("t.csv", index=False)
    ours, theirs = load("t.parquet"), load("t.csv")
    assert [a.tolist() for a in whole(ours)] == [a.tolist() for a in whole(theirs)]
    assert (ours.feature_names, ours.class_names, ours.target) == (("a", "b"), ("x", "y"), theirs.target)
    frame.loc[3, "a"] = None
    frame.to_parquet("t.parquet")
    with pytest.raises(
        DataError, match=r"t.parquet: row 4, column 1 \(a\): .*leave such rows out or fill them in"
    ):
        load("t.parquet")
    Path("t.parquet").write_bytes(Path("t.parquet").read_bytes()[:200])
    with pytest.raises(DataError, match=r"t.parquet: not a readable Parquet file"):
        load("t.parquet")


@pytest.mark.parametrize("column", ["a", "label"])
@pytest.mark.parametrize("cell", ["", "NA", "NaN", "null", "None", "?", "n/a", "#N/A"])
def test_missing_values_are_named_with_what_to_do(cell, column):
    text = "a,b,label\n" + "1,2,0\n2,3,1\n" * 5 + (f"{cell},5,0\n" if column == "a" else f"5,5,{cell}\n")
    Path("t.csv").write_text(text)
    number = 1 if column == "a" else 3
    with pytest.raises(DataError, match=rf"t.csv: line 12, column {number} \({column}\): .*(out|missing)"):
        load("t.csv")


CLEARED = [(",,", ","), ('"","",""', ","), (' ,  ,""', ","), ("\t\t", "\t")]


@pytest.mark.parametrize(
    ("row", "mark", "door"),
    [(*how, door) for how in CLEARED for door in ("train", "test", "predict")]
    + [(row, ",", "predict") for row in ('""', '" "')],  # of one column
)
def test_a_row_of_separators_is_refused_amid_a_table_and_left_out_at_its_end(row, mark, door):
    names, cells = (mark.join(text[: 1 + row.count(mark)]) for text in ("abc", "120"))

    def read(*below: str) -> int:
        rows = [cells, cells.replace("0", "1")] * 6
        Path("t.csv").write_text("\n".join([names, *rows * 2]))
        Path("u.csv").write_text("\n".join([row, names, rows[0], "", *rows[1:], *below]))
        how = TableFormat(delimiter=mark)
        if door == "predict":
            learned = Inputs("numbers", tuple(names.split(mark)))
            return sum(map(len, stream_inputs("u.csv", 1, inputs=learned, table=how)))
        if door == "train":
            data = load("u.csv", delimiter=mark)
            return len(data.train.inputs) + len(data.test.inputs)
        return len(load("t.csv", test_data="u.csv", delimiter=mark).test.inputs)

    assert read() == read(row) == read("", row, row, "   ", row) == 12
    with pytest.raises(DataError, match=r"u.csv: line 16, column 1 \(a\): the cell is empty"):
        read(row, row, "", cells)


def test_a_row_of_separators_above_all_others_is_data_where_there_is_no_header():
    Path("t.csv").write_text(",,\n" + "1,2,0\n2,3,1\n" * 5)
    with pytest.raises(DataError, match=r"line 1, column 1: the cell is empty"):
        load("t.csv")
    Path("t.csv").write_text("a,b,c\n,,\n" + "1,2,0\n2,3,1\n" * 5)
    with pytest.raises(DataError, match=r"line 2, column 1 \(a\): the cell is empty"):
        load("t.csv")
    Path("t.csv").write_text(
        "3,7,9\n,,\n" + "1,2,0\n2,3,1\n" * 5
    )  # no header, by the row below that has cells
    with pytest.raises(DataError, match=r"line 2, column 1: the cell is empty"):
        load("t.csv")
    Path("t.csv").write_text("a,b,c\n,\n" + "1,2,0\n2,3,1\n" * 5)
    with pytest.raises(DataError, match=r"line 2 has 2 columns, the first has 3"):
        load("t.csv")


def test_a_row_of_nulls_is_refused():
    frame = pd.DataFrame({"a": [1.5, None, 2] * 5, "label": ["x", None, "y"] * 5})
    frame.to_parquet("t.parquet")
    with pytest.raises(DataError, match=r"t.parquet: row 2, column 1 \(a\): the cell is empty"):
        load("t.parquet")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("1_000", "'1_000' is not a number"), ("0x10", "is not a number"), ("1,5", "--decimal , reads a decimal comma"),
        ("1;2", "separated by ';', which --delimiter can name"), ("red", "only a target can be words"),
        ("inf", "not a number that is finite"), ("2020-01-01", "leave out dates"), ("50%", "take units, signs"),
        ("1.234.567", "take units, signs and marks of thousands out"), ("$5", "take units, signs"),
        ("Yes", "write 1 and 0 for it"), ("1e999", "not a number that is finite"),
    ],
)  # fmt: skip
def test_cells_that_are_no_plain_numbers_are_refused(cell, says):
    with pytest.raises(DataError, match=rf"line 3, column 1 \(a\): .*{says}"):
        load(table("a,label", [1, f'"{cell}"'], [0, 1]))


def test_a_point_is_no_number_where_the_comma_is_the_mark():
    with pytest.raises(DataError, match=r"line 2, column 1 \(a\): '1.234' is not a number"):
        load(table("a;label", ["1.234", "2"], [0, 1], mark=";"), delimiter=";", decimal=",")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"decimal": ","}, "cells cannot be separated by ',' if numbers have it too"),
        ({"decimal": "'"}, "decimal mark"), ({"delimiter": ";;"}, "one character"), ({"delimiter": "1"}, "delimiter"),
    ],
)  # fmt: skip
def test_formats_that_cannot_be(said, says):
    with pytest.raises(UsageError, match=says):
        load(table("", [1, 2], [0, 1]), **said)


@pytest.mark.parametrize("said", [{"target": "a"}, {"delimiter": ";"}, {"header": True}, {"pixels": True}])
def test_what_is_said_of_a_table_is_refused_of_anything_else(said):
    np.savez("a.npz", X=np.eye(4), y=[0, 1, 0, 1])
    np.save("a.npy", np.eye(4))
    for name in ("a.npz", "iris"):
        with pytest.raises(UsageError, match="is no table: leave out"):
            load(name, **said)
    with pytest.raises(UsageError, match="is no table: leave out"):
        list(stream_inputs("a.npy", 2, table=TableFormat(**said)))


# Pixels


def test_columns_of_pixels_are_bytes():
    cells = np.random.default_rng(0).integers(0, 256, (6, 9))
    data = load(table("", *cells.T, [0, 1] * 3), pixels=True)
    assert data.train.inputs.dtype == np.uint8
    assert data.image_shape == (3, 3)
    assert "9 inputs, bytes of images, 3 × 3" in data.summary()
    assert set(map(tuple, whole(data)[0].tolist())) == set(map(tuple, cells.tolist()))


@pytest.mark.parametrize(
    ("cell", "says"), [("256", "256"), ("0.5", "0.5"), ("-1", "-1"), ("1", "scaled already")]
)
def test_what_is_no_byte_is_no_pixel(cell, says):
    with pytest.raises(DataError, match=says):
        load(table("a,b,label", [0, cell], [1, 0], [0, 1]), pixels=True)


# Labels


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["TRUE", "True"], True),
        (["ash", "Ash "], True),
        (["\ufb01r", "fir"], True),
        (["a b", "ab"], True),
        (["a", "b"], False),
    ],
)
def test_labels_that_look_alike_are_said_to_be_two_classes(labels, said):
    with pytest.warns(UserWarning, match="are taken for two classes") if said else nullcontext():
        assert len(load(table("a,label", [1, 2], labels)).class_names) == 2


def test_labels_are_alike_however_their_letters_are_composed():
    composed, apart = "for\u00eat", "fore\u0302t"
    table("a,label", [1, 2, 3, 4], [composed, apart, "pr\u00e9", "pr\u00e9"])
    table("a,label", [1, 2], [apart, "pre\u0301"], path="test.csv")
    data = load("t.csv", test_data="test.csv")
    assert data.class_names == (composed, "pr\u00e9")
    assert (data.train.targets.tolist()[:4], data.test.targets.tolist()[:2]) == ([0, 0, 1, 1], [0, 1])
    np.savez(
        "t.npz", x_train=np.eye(4, 2), y_train=[composed, "a"] * 2, x_test=np.eye(2), y_test=[apart, "a"]
    )
    assert load("t.npz").test.targets.tolist() == [1, 0]


@pytest.mark.parametrize("cell", ["-", "missing", "."])
def test_a_target_that_is_to_be_a_number_is_not_called_a_class(cell):
    table("a,b", [1, 2, 3, 5], [0.5, 1.5, cell, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            DataError, match=f"line 4, column 2 .*the target {re.escape(repr(cell))} is not a number"
        ):
            load("t.csv", targets="values")


@pytest.mark.parametrize(
    ("target", "said"),
    [([5, 6, 7, 8, 9], True), (["5.0", "6.0", "7.0", "8.0", "9.0"], True), ([5, 6, 8, 7, 9], False)],
)
def test_a_target_that_counts_the_rows_is_pointed_at(target, said):
    table("a,id", [3, 1, 4, 1, 5], target, repeat=1)
    says = "t.csv: the target, 'id', the last column, counts the rows; --target names another column"
    with pytest.warns(UserWarning, match=says) if said else nullcontext():
        load("t.csv", targets="values")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["0.5", "-999", "3"], "line 3, column 2 (b): -999, in 2 of 6 rows, is far from the column's other"),
        (["36.6", "37.1", "9999.0"], "line 4, column 2 (b): 9999, in 2 of 6 rows, is far"),
        (["0.2", "-9", "0.9"], "line 3, column 2 (b): -9, in 2 of 6 rows, is far"),
        ([0, 120, 999], "line 4, column 2 (b): 999, in 2 of 6 rows, is far from the column's other values, 0 to 120;"),
        ([-9, 0, 1], "line 2, column 2 (b): -9"), ([30, 199, 999], "line 4, column 2 (b): 999"),
        ([30, 199, -999], "line 4, column 2 (b): -999"), ([18, 90, -99], "line 4, column 2 (b): -99"),
        ([-99, "-20.5", 35], "line 2, column 2 (b): -99"), ([1, 5, -9], "line 4, column 2 (b): -9"),
        ([20000, 90000, -9], "line 4, column 2 (b): -9"), ([7, 7, -999], "line 4, column 2 (b): -999"),
        ([0, 41310, 99999], None), ([0, 8, 99], None), ([-10, 9, -9], None), ([-9, -5, 4], None),
        ([1, 999, 2000], None), ([1, 998, 999], None), ([199, 499, 999], None), ([4999, 10, 9999], None),
        ([0, 0, 999], None), (["0.5", "998.9", "3"], None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["input", "target"])
def test_a_number_that_may_stand_for_a_missing_one_is_pointed_at(cells, said, role):
    table(
        "a,b" if role == "target" else "a,b,c",
        [3, 1, 4],
        cells,
        *([[2, 7, 1]] if role == "input" else []),
        repeat=2,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load("t.csv", targets="values")
    told = [str(w.message) for w in caught]
    assert len(told) == bool(said)
    assert not said or told[0].startswith(f"t.csv: {said}")


def test_each_of_several_codes_in_a_column_is_pointed_at():
    table("a,b,label", [3, 1, 4, 1], [-9, 4, -99, 1], ["x", "y", "x", "y"], repeat=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load("t.csv")
    told = [str(w.message).partition(", is far")[0] for w in caught]
    assert sorted(told) == [
        f"t.csv: line {i}, column 2 (b): {c}, in 3 of 12 rows" for i, c in ((2, -9), (4, -99))
    ]


def of_others(door, columns, how=None, *, learned=None):
    """What is said of a table of these columns, a and b, to test on, or to predict for after ``learned``."""
    how = how or {}
    mark = how.get("delimiter", ",")
    if door == "predict":
        path = table(mark.join("ab"), *columns, path="new.csv", repeat=1, mark=mark)
    else:
        kinds = [("x", "y")[i % 2] for i in range(len(columns[0]))]
        path = table(mark.join(("a", "b", "label")), *columns, kinds, path="new.csv", repeat=1, mark=mark)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if door == "predict":
            for rows in (1, 7, 100):  # said once, in however many parts it is read
                caught.clear()
                list(stream_inputs(path, rows, inputs=learned, table=TableFormat(**how)))
        else:
            load("t.csv", test_data=path, **how)
    return [str(w.message) for w in caught if str(w.message).startswith("new.csv")]


AGES = np.linspace(18, 60, 43)
CODES_AMONG_OTHERS = [
    ([30, 41, -999, 25, 60, 33, 29, 51, -999, 40], "line 4, column 2 (b): -999, in 2 of 10 rows, is far"),
    ([999], "line 2, column 2 (b): 999, in 1 of 1 rows, is far from those in training"),
    ([-9, 30], "line 2, column 2 (b): -9, in 1 of 2 rows, is far from the column's other values, 30 to 30"),
    ([30, 41, 25, 60, 33, 29, 51, 40, 20, 75], None), ([99, 30], None),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "says"), CODES_AMONG_OTHERS)
@pytest.mark.parametrize("door", ["test", "predict"])
def test_a_code_in_another_table_than_that_of_training_is_pointed_at(door, cells, says):
    x = np.column_stack([AGES / 9, AGES])
    table("a,b,label", *x.T, ["x", "y"] * 21 + ["x"], repeat=1)
    learned = Inputs("numbers", ("a", "b"), scaling=Scaling.of(x))
    told = of_others(door, (np.linspace(2, 6, len(cells)), cells), learned=learned)
    assert len(told) == bool(says)
    assert not says or told[0].startswith(f"new.csv: {says}")


@pytest.mark.parametrize("door", ["test", "predict"])
def test_what_is_usual_in_training_is_no_code_however_few_its_rows(door):
    x = np.column_stack([AGES, np.linspace(-60, 1400, 43)])
    table("a,b,label", *x.T, ["x", "y"] * 21 + ["x"], repeat=1)
    learned = Inputs("numbers", ("a", "b"), scaling=Scaling.of(x))
    for cells in ([1, 2, 999], [3, -9, 5]):
        assert of_others(door, ([20, 30, 41], cells), learned=learned) == []


def test_a_model_that_knows_but_the_size_of_rows_has_a_table_judged_by_itself():
    many = ([5e4, 4e4] * 6, [30, 41, -999, 25, 60, 33, 29, 51, 40, 47, 33, 38])
    few = ([5e4, 4e4, 3e4], [30, 41, -999])
    for size, columns, said in ((4e4, many, 1), (4e4, few, 0), (0.0, many, 1), (0.0, few, 0), (30.0, few, 1)):
        told = of_others("predict", columns, learned=Inputs("numbers", ("a", "b"), size=size))
        assert ["-999" in text for text in told] == [True] * said


@pytest.mark.parametrize(
    ("cells", "how", "said"),
    [
        (["4.892", "1.020", "8.001"], {}, True), (["4.892"], {}, True), (["4.892", "980"], {}, True),
        (["4,892"], {"delimiter": ";", "decimal": ","}, True), (["4.892"] * 9, {"delimiter": ";"}, True),
        (["4.892", "1.02"], {}, False), (["4892", "1020"], {}, False), (["0.892"], {}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("door", ["test", "predict"])
def test_marks_of_thousands_in_another_table_are_pointed_at(door, cells, how, said):
    mark = how.get("delimiter", ",")
    x = np.column_stack([AGES, np.linspace(1000, 9000, 43).round()])
    columns = x.astype(int).T.tolist()
    table(mark.join(("a", "b", "label")), *columns, ["x", "y"] * 21 + ["x"], repeat=1, mark=mark)
    other = np.arange(20, 20 + len(cells))
    for learned in (
        Inputs("numbers", ("a", "b"), scaling=Scaling.of(x)),
        Inputs("numbers", ("a", "b"), size=5e3),
    )[: 1 if "980" in cells else 2]:  # of whole rows, those are not far smaller
        told = of_others(door, (other // 9, cells), how, learned=learned)
        assert ["'b' may have marks of thousands" in text for text in told] == [True] * said


@pytest.mark.parametrize("door", ["test", "predict"])
def test_three_decimals_like_those_of_training_are_no_thousands(door):
    x = np.column_stack([AGES, np.linspace(1.125, 7.625, 43)])
    table("a,b,label", *x.T, ["x", "y"] * 21 + ["x"], repeat=1)
    learned = Inputs("numbers", ("a", "b"), scaling=Scaling.of(x))
    assert of_others(door, ([20, 30], ["1.125", "2.375"]), learned=learned) == []


@pytest.mark.parametrize("cells", [[-999, *range(20, 30)], [999], ["4.892"] * 3])
def test_the_target_of_a_test_table_is_looked_through_too(cells):
    large = isinstance(cells[0], str)
    table("a,y", AGES, np.linspace(1500, 9500, 43) if large else AGES[::-1], repeat=1)
    table("a,y", np.linspace(20, 50, len(cells)), cells, path="new.csv", repeat=1)
    with pytest.warns(
        UserWarning, match=r"new.csv: ('y' may have marks|line 2, column 2 \(y\): -?999, in 1 of)"
    ):
        load("t.csv", test_data="new.csv", targets="values")


@pytest.mark.parametrize("last", [np.sum, np.mean])
@pytest.mark.parametrize("door", ["test", "predict"])
def test_a_row_of_totals_in_another_table_is_told(door, last, rng):
    table("a,b,label", AGES, AGES[::-1], ["x", "y"] * 21 + ["x"], repeat=1)
    rows = rng.integers(20, 50, (11, 2))
    learned = Inputs("numbers", ("a", "b"))
    columns = np.vstack([rows, last(rows, axis=0)]).T
    told = of_others(door, columns, learned=learned)
    word = "sums" if last is np.sum else "means"
    assert told == [
        f"new.csv: the inputs of the last row, in line 13, are the {word} of those above it: leave that row out"
    ]
    assert of_others(door, columns[:, :-1], learned=learned) == []
    assert of_others(door, np.full((2, 12), 20), learned=learned) == []


def test_whole_numbers_that_lose_digits_are_pointed_at_in_a_table_to_predict_for():
    told = of_others("predict", ([1, 2], [2**60, 2**60 + 9]), learned=Inputs("numbers", ("a", "b")))
    assert [text.partition(" (")[0] for text in told] == ["new.csv: 'b' has numbers beyond 2⁵³"]


def test_ordinary_data_has_no_number_that_is_taken_for_a_missing_one(rng):
    from sklearn import datasets

    sets = [
        getattr(datasets, f"load_{name}")().data
        for name in ("iris", "wine", "breast_cancer", "diabetes", "digits")
    ]
    skewed = [
        rng.poisson(9, 300),
        np.rint(rng.lognormal(2, 2, 300)),
        np.rint(1 + rng.pareto(1, 300)),
        rng.geometric(0.01, 300),
        rng.permutation(2000)[:300] + 1,
        np.arange(999, 399, -2),
        np.rint(rng.normal(0, 8, 300)),
        rng.integers(-9, 3, 300),
    ]
    sets += [
        datasets.make_regression(200, 5, random_state=0)[0],
        datasets.make_classification(200, random_state=0)[0],
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (*sets, np.column_stack(skewed)):
            np.savetxt("t.csv", np.column_stack([data, np.arange(len(data)) % 2]), "%.9g", ",")
            load("t.csv", header=False, target=str(data.shape[1] + 1))
            list(stream_inputs("t.csv", 64, inputs=Inputs("numbers")))


def test_whole_numbers_that_lose_digits_are_pointed_at():
    table("a,id,label", [1, 2], [2**60, 2**60 + 9], ["x", "y"])
    with pytest.warns(UserWarning, match="t.csv: 'id' has numbers beyond 2⁵³ .*leave it out"):
        load("t.csv")


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ("sep=;", "take its first line out, 'sep=;', and name the --delimiter"), ("sep=,", "line out, 'sep=,'$"),
        ("# made by me", "first line is a comment"),
        *((title, "its first line, 'Export of 2024-05-01', seems to be a title above the table: take it out")
          for title in ("Export of 2024-05-01", "Export of 2024-05-01,", "Export of 2024-05-01\n\nby me")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wider", ["", "7,"])
def test_lines_before_the_table_are_named(first, says, wider):
    Path("t.csv").write_text(f"{first}\n{wider and 'c,'}a,label\n{wider}1,x\n{wider}2,y\n")
    with pytest.raises(DataError, match=says):
        load("t.csv")


@pytest.mark.parametrize("title", ["Trees", "Trees,,", "Trees of 1980,,"])
def test_a_title_is_named_where_a_table_has_no_target(title):
    Path("t.csv").write_text(f"{title}\na,b,c\n1,2,3\n")
    for inputs in (Inputs("numbers"), NAMED):
        with pytest.raises(DataError, match=f"first line, '{title.strip(',')}', seems to be a title"):
            list(stream_inputs("t.csv", 9, inputs=inputs))


@pytest.mark.parametrize("content", ["a\n1\n", '"a"\n"1",5\n', "a,\n5,\n", ",a\n0,5\n", "5\n6\n"])
@pytest.mark.filterwarnings("ignore:.*first column has no name")
def test_a_header_of_one_column_is_no_title(content):
    Path("t.csv").write_text(content)
    assert next(stream_inputs("t.csv", 9)).shape[1] == 1


@pytest.mark.parametrize("mark", [";", " ", "\t", "|"])
def test_another_delimiter_is_named_by_the_line_below_too(mark):
    table(mark.join(["a", "b", "label"]), ["1,5", "2,5"], ["3,5", "1,5"], ["x", "y"], mark=mark)
    said = {"\t": "tab", " ": "space"}.get(mark, repr(mark))
    with pytest.raises(DataError, match=re.escape(f"separated by {mark!r}: --delimiter {said}")):
        load("t.csv")


def test_a_line_that_names_the_delimiter_is_quoted_as_it_stands():
    for mark in ";|":
        Path("t.csv").write_text(f"sep={mark}\na{mark}label\n1{mark}x\n2{mark}y\n")
        with pytest.raises(DataError, match=f"first line out, 'sep=[{mark}]'$"):
            load("t.csv", delimiter=mark)


TEXT = "a,label\n" + "1,x\n2,y\n" * 5


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (gzip.compress(TEXT.encode(), mtime=0), "is compressed by gzip: add .gz to its name"),
        (bz2.compress(TEXT.encode()), "is compressed by bzip2: unpack it"),
        (lzma.compress(TEXT.encode()), "is compressed by xz: unpack it"),
        (b"PK\x03\x04" + bytes(40), "is an Excel workbook or another zip archive: save the table as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(40), "is an old Excel workbook"),
        (b"PAR1" + bytes(40), "is a Parquet file: name it .parquet"),
        (TEXT.encode("utf-16"), "is text in UTF-16: save it as UTF-8"),
        (TEXT.encode("utf-16-be"), "is no text in UTF-8, .* in UTF-16: save it"),
        (TEXT.encode("utf-16-le"), "is no text in UTF-8, but perhaps in UTF-16: save it as UTF-8"),
        (b"<!DOCTYPE html>\n<html><body>1,2</body></html>", "is a web page or XML, not a table: download"),
        (b"\xef\xbb\xbf\n  <html lang='en'>\n<p>a,b\n</html>", "is a web page or XML, not a table: download"),
        (b'<?xml version="1.0"?>\n<rows><row a="1"/></rows>', "is a web page or XML"),
        (("Stra\u00dfe" + TEXT).encode("latin-1"), "not a readable CSV file: .*; save it as UTF-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz"])
def test_what_is_no_text_is_called_what_it_is(raw, says, name):
    Path(name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    for read in (lambda: load(name), lambda: list(stream_inputs(name, 9))):
        with pytest.raises(DataError, match=f"{name}:? {says}"):
            read()


@pytest.mark.parametrize("cell", ["NA", "?", "NULL", "n/a", "None", "-", ".", r"\N", "missing"])
def test_words_that_may_stand_for_a_missing_label_are_said_to_be_a_class(cell):
    with pytest.warns(
        UserWarning, match=f"the target {re.escape(cell)} is taken for a class; if it is missing"
    ):
        assert cell in load(table("a,label", [1, 2, 3], ["x", "y", cell])).class_names


def test_labels_with_gaps_are_shown_as_they_are():
    data = load(table("a,label", [1, 2, 3], [0, 3, 7]), targets=Targets(CLASSES, 10))
    assert data.summary().endswith("3 classes (0, 3, 7)")
    table("a,label", [1, 2, 3], [0, 3, 5], path="test.csv")
    with pytest.warns(
        UserWarning, match=r"test.csv: the target has the label 5, of which the training part has none"
    ):
        load("t.csv", test_data="test.csv", targets=Targets(CLASSES, 10))


# A test part of its own


def test_a_second_table_is_the_test_part_by_the_names_of_its_columns():
    table("a,b,label", [1, 2, 3], [5, 6, 7], ["x", "y", "z"])
    table("label,b,more,a", ["z", "x"], [70, 50], [0, 0], [30, 10], path="test.csv", repeat=1)
    with pytest.warns(UserWarning, match="test.csv: more is not among the columns"):
        data = load("t.csv", test_data="test.csv")
    assert (data.test.inputs.tolist(), data.test.targets.tolist()) == ([[30, 70], [10, 50]], [2, 0])
    assert len(data.train) == 30
    with pytest.raises(UsageError, match="test part of its own"), pytest.warns(UserWarning, match="more"):
        load("t.csv", test_data="test.csv", test_fraction=0.5)


def test_the_training_part_is_no_test_part():
    path = table("a,label", [1, 2], ["x", "y"])
    Path("link.csv").symlink_to(path)
    Path("copy.csv").write_bytes(path.read_bytes())
    for other in ("t.csv", "link.csv", "copy.csv"):
        with pytest.raises(UsageError, match="the table that is trained on, and cannot test"):
            load("t.csv", test_data=other)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["980", "1.848", "2.156"], True), (["1.848", "2.156", "22.156"], True), (["980", "1.848", "2.15"], False),
        (["0.125", "3", "0.250"], False), (["7", "8"], False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize("header", ["size;a", "a;size"])
def test_marks_of_thousands_are_pointed_at(cells, said, mark, header):
    size, other = [cell.replace(".", mark) for cell in cells], [str(i) for i in range(5, 5 + len(cells))]
    table(header, *((size, other) if header == "size;a" else (other, size)), mark=";")
    with (
        pytest.warns(UserWarning, match="t.csv: 'size' may have marks of thousands")
        if said
        else nullcontext()
    ):
        load("t.csv", delimiter=";", decimal=mark, targets="values")


def test_three_decimals_are_no_thousands_where_numbers_have_a_point():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(table("a,b,label", ["1.125", "2.250"], ["7", "8"], ["x", "y"]))


@pytest.mark.parametrize(
    ("header", "label", "says"),
    [
        ("a,c,label", "x", "test.csv: b is missing"), ("", "x", "3 columns, and the training part 2|"),
        ("a,b,label", "w", "test.csv: the target has a label 'w', but the classes .* are x, y, z"),
    ],
)  # fmt: skip
def test_a_test_part_that_does_not_fit_is_refused(header, label, says):
    table("a,b,label", [1, 2, 3], [5, 6, 7], ["x", "y", "z"])
    columns = [[1], [2], [3], [label]] if not header else [[1], [2], [label]]
    table(header, *columns, path="test.csv", repeat=1)
    with pytest.raises(DataError, match=says):
        load("t.csv", test_data="test.csv")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("a,b,kind", True), ("b,a,label", True), ("pixel1,pixel0,label", True), ("pixel0,pixel1,label", False),
        ("1x1,1x2,kind", False), ("0,1,label", False), ("", False),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*taken for a header")
def test_names_of_a_test_part_that_the_training_part_lacks_are_said(header, said):
    table("", [1, 2, 3], [5, 6, 7], ["x", "y", "z"])
    table(header, [30, 10], [70, 50], ["z", "x"], path="test.csv", repeat=1)
    names = ", ".join(header.split(",")[:2])
    words = (
        f"test.csv: the network learned from columns without names; these, {names}, are taken in the order"
    )
    with pytest.warns(UserWarning, match=words) if said else nullcontext():
        data = load("t.csv", test_data="test.csv", header=None if header else False)
    assert (data.test.inputs.tolist(), data.test.targets.tolist()) == ([[30, 70], [10, 50]], [2, 0])


@pytest.mark.parametrize(
    ("header", "said"), [("a,b,label", True), ("pixel1,pixel0,label", True), ("pixel0,pixel1,label", False)]
)
def test_a_test_part_without_the_names_of_the_training_part_is_said(header, said):
    table(header, [1, 2, 3], [5, 6, 7], ["x", "y", "z"])
    table("", [30, 10], [70, 50], ["z", "x"], path="test.csv", repeat=1)
    names = header.removesuffix(",label").replace(",", ", ")
    words = (
        f"test.csv: the network learned from columns {names}; these have no names, and are taken in the order"
    )
    with pytest.warns(UserWarning, match=words) if said else nullcontext():
        data = load("t.csv", test_data="test.csv")
    assert (data.test.inputs.tolist(), data.test.targets.tolist()) == ([[30, 70], [10, 50]], [2, 0])


@pytest.mark.parametrize(("header", "target"), [("label,a,b", None), ("a,y,b", None), ("a,b,Target", "1")])
def test_a_target_at_another_place_of_a_test_part_is_refused(header, target):
    table("", [1, 2, 3], [5, 6, 7], [0, 1, 2])
    table(header, [1, 2], [1, 0], [1, 0], path="test.csv", repeat=1)
    with pytest.raises(
        DataError, match=r"test.csv: the target of the training part, .* stands elsewhere: .*header"
    ):
        load("t.csv", test_data="test.csv", target=target, targets="values")


def test_names_are_the_same_however_their_letters_are_composed():
    whole, parts = "L\u00e4nge", "La\u0308nge"
    for first, other in ((whole, parts), (parts, whole)):
        table(f"b,{first},label", [5, 6], [1, 2], ["x", "y"])
        table(f"{other},b,label", [3, 4], [7, 8], ["x", "y"], path="test.csv", repeat=1)
        data = load("t.csv", test_data="test.csv")
        assert data.test.inputs.tolist() == [[7, 3], [8, 4]]
        assert next(stream_inputs("test.csv", 1, inputs=Inputs("numbers", (first,)))).tolist() == [[3]]
        table(f"b,{first},c", [5, 6], [1, 2], [3, 4])
        assert load("t.csv", target=other, targets="values").feature_names == ("b", "c")
        pd.DataFrame({other: [3.0]}).to_parquet("t.parquet")
        assert next(stream_inputs("t.parquet", 1, inputs=Inputs("numbers", (first,)))).tolist() == [[3]]
    table(f"{whole},{parts},label", [1], [2], ["x"])
    with pytest.raises(DataError, match="two columns are called"):
        load("t.csv")


# Names at prediction

NAMED = Inputs("numbers", ("a", "b"))


@pytest.mark.parametrize(
    ("header", "expected", "said"),
    [
        ("a,b", [[1, 5]], 0), ("b,a", [[5, 1]], 0), ('" a "," b"', [[1, 5]], 0),
        ("", [[1, 5]], 1), ("0,1", [[1, 5]], 2),  # by their places, and a word on it
    ],
)  # fmt: skip
def test_columns_are_found_by_name(header, expected, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert next(stream_inputs(table(header, [1], [5], repeat=1), 9, inputs=NAMED)).tolist() == expected
    assert len(caught) == said
    words = "t.csv: the network learned from columns a, b; these have no names, and are taken in the order"
    assert not said or words in str(caught[-1].message)


@pytest.mark.parametrize(
    ("header", "expected"),
    [("0,2", [[1, 5]]), ("2,0", [[5, 1]]), ("2,1,0", [[9, 1]]), ("0,1", None), ("1,2", None), ("3,7", None)],
)
def test_columns_that_are_called_by_numbers_are_found_by_them(header, expected):
    columns = ([1], [5], [9])[: header.count(",") + 1]
    path, learned = table(header, *columns, repeat=1), Inputs("numbers", ("0", "2"))
    if expected is None:
        with pytest.raises(UsageError, match="may be a header or data"):
            list(stream_inputs(path, 9, inputs=learned))
        return
    with nullcontext() if header.count(",") == 1 else pytest.warns(UserWarning, match="1 is not among"):
        assert next(stream_inputs(path, 9, inputs=learned)).tolist() == expected


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_an_array_in_a_file_is_said_to_have_no_names(ending):
    rows = np.arange(18.0).reshape(9, 2)
    np.save("t.npy", rows)
    np.savez("t.npz", X=rows)
    words = (
        f"t.{ending}: the network learned from columns a, b; these have no names, and are taken in the order"
    )
    for learned, said in ((NAMED, 1), (Inputs("numbers", ("x1", "x2")), 0), (Inputs("numbers"), 0)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parts = list(stream_inputs(f"t.{ending}", 4, inputs=learned))
        assert np.concatenate(parts).tolist() == rows.tolist()
        assert [words in str(w.message) for w in caught] == [True] * said


def test_columns_left_over_are_left_out_aloud():
    path = table("label,b,id,a", ["x"], [5], ["k7"], [1], repeat=1)
    with pytest.warns(
        UserWarning, match="t.csv: label, id are not among the columns that the network learned from"
    ):
        assert next(stream_inputs(path, 9, inputs=NAMED)).tolist() == [[1, 5]]


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match=r"t.csv: b is missing; .* did you mean 'bb'"):
        list(stream_inputs(table("a,bb", [1], [5]), 9, inputs=NAMED))


def test_a_network_that_learned_from_bytes_takes_columns_as_pixels():
    learned = Inputs("bytes")
    assert next(stream_inputs(table("", [7, 255], [0, 3]), 2, inputs=learned)).tolist() == [[7, 0], [255, 3]]
    for cell in ("0.5", "300"):
        with pytest.raises(DataError, match="is no pixel"):
            list(stream_inputs(table("", [7, cell], [0, 3]), 2, inputs=learned))


def test_pixels_of_0_and_1_are_bytes_for_a_network_that_learned_from_those():
    path, black = table("", [1, 0], [0, 1], repeat=1), table("", [0], [0], path="black.csv", repeat=1)
    for size in (0.0, 85.0):
        with pytest.raises(DataError, match="no pixel is above 1, so that they seem to be scaled already"):
            next(stream_inputs(path, 2, inputs=Inputs("bytes", size=size)))
        assert next(stream_inputs(black, 2, inputs=Inputs("bytes", size=size))).tolist() == [[0, 0]]
    given = next(stream_inputs(path, 2, inputs=Inputs("bytes", size=0.7)))
    assert (given.dtype, given.tolist()) == (np.uint8, [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("header", "said"), [("a,b", True), ("pixel1,pixel0", True), ("pixel0,pixel1", False), ("", False)]
)
@pytest.mark.parametrize("kind", ["numbers", "bytes"])
def test_names_that_a_network_without_any_is_asked_with_are_said(header, said, kind):
    words = "t.csv: the network learned from columns without names; these, .*, are taken in the order they come in"
    with pytest.warns(UserWarning, match=words) if said else nullcontext():
        part = next(stream_inputs(table(header, [1, 3], [5, 7]), 2, inputs=Inputs(kind)))
    assert part.tolist() == [[1, 5], [3, 7]]


# Arrays with labels that are no class numbers


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a"], ("a", "b")), ([1, 2], ("1", "2")), ([-1, 1], ("-1", "1")), ([0, 1], None),
        ([2**60, 2**60 + 1], (str(2**60), str(2**60 + 1))),
    ],
)  # fmt: skip
def test_labels_in_an_archive_are_what_was_written(labels, names):
    x = np.arange(20.0)[:, None]
    np.savez("a.npz", X=x, y=np.array(labels * 10), X_test=x[:2], y_test=np.array(labels))
    data = load("a.npz")
    assert (data.classes, data.class_names, data.test.targets.tolist()) == (
        2,
        names,
        [1, 0] if labels[0] == "b" else [0, 1],
    )
    if names:
        np.savez("a.npz", X=x, y=np.array(labels * 10), X_test=x[:1], y_test=np.array([77]))
        with pytest.raises(DataError, match="a label '77', but the classes of the training part"):
            load("a.npz")


@pytest.mark.parametrize(
    ("last", "word"),
    [("sum", "sums"), ("mean", "means"), (None, None), ("first", None)],
)
def test_a_row_of_totals_is_told(last, word, tmp_path, rng, recwarn):
    table = np.column_stack(
        [rng.integers(1, 40, 20), rng.normal(2, 1, 20).round(2), rng.normal(5, 1, 20).round(2)]
    )
    if last:
        more = table[0] if last == "first" else getattr(table, last)(axis=0)
        table = np.vstack([table, more])
    np.savetxt(tmp_path / "t.csv", table, "%.10g", ",", header="a,b,y", comments="")
    load(tmp_path / "t.csv", targets="values")
    told = [str(w.message) for w in recwarn if "last row" in str(w.message)]
    assert len(told) == bool(word)
    if word:
        assert (
            f"the inputs of the last row, in line 22, are the {word} of those above it: leave that row out"
            in told[0]
        )
    bits = np.eye(2)[rng.integers(0, 2, 12)]
    bits[-1], bits[:-1] = (1, 0), (0, 1)
    bits[0] = 1, 0
    np.savetxt(
        tmp_path / "bits.csv",
        np.column_stack([bits, np.arange(12) % 2]),
        "%g",
        ",",
        header="a,b,y",
        comments="",
    )
    load(tmp_path / "bits.csv", targets="values")
    assert not [w for w in recwarn if "last row" in str(w.message)][bool(word) :]


# Inputs that give the target away

KIND = np.arange(36) % 3
SPREAD = pd.get_dummies(pd.Series(np.array(["ash", "birch", "cedar"])[KIND]), prefix="kind")


def leaks(frame: pd.DataFrame, **how) -> list[str]:
    """What is said of inputs that give the target away, of a table with one more that does not."""
    frame = pd.DataFrame({"long": np.sqrt(np.arange(len(frame)))}).join(frame)
    frame.to_csv("t.csv", index=False)
    frame.to_parquet("t.parquet")
    frame.to_csv("bare.csv", index=False, header=False)
    how = {"target": frame.columns[-1]} | how
    bare = {"header": False} | how | {"target": 1 + frame.columns.get_loc(how["target"])}
    told = []
    for name, said in (("t.csv", how), ("t.parquet", how), ("bare.csv", bare)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load(name, **said)
        told.append([str(w.message).partition(": ")[2] for w in caught])
    named, parquet, without = told
    assert named == parquet
    assert len(named) < 2
    assert not without or named  # some are found by their names alone
    return named


@pytest.mark.parametrize("dtype", [bool, int, float])
@pytest.mark.parametrize("target", ["kind_cedar", "kind_birch", "kind_ash"])
@pytest.mark.parametrize("order", ["beside", "apart"])
def test_a_target_that_is_one_of_several_one_hot_columns_is_pointed_at(dtype, target, order, rng):
    frame = SPREAD.astype(dtype).assign(wet=rng.integers(0, 2, 36))
    if order == "beside":  # found by where they stand, whatever they are called
        frame.columns = ["ash", "birch", "cedar", "wet"]
    else:
        frame = frame[["kind_birch", "wet", "kind_cedar", "kind_ash"]]
    target = target[5:] if order == "beside" else target
    others = [name for name in frame.columns if name not in (target, "wet")]
    (said,) = leaks(frame, target=target)
    assert sorted(re.findall(r"'(\w+)'", said)) == sorted([target, *others])
    assert "look like one thing's classes in columns of 0 and 1" in said


def test_the_last_of_one_hot_columns_is_pointed_at():
    assert "kind_cedar', the last column, and 'kind_ash', 'kind_birch' look" in leaks(SPREAD)[0]
    assert not leaks(SPREAD.drop(columns="kind_ash"))


@pytest.mark.parametrize(
    ("columns", "by"),
    [
        ({"is_male": [1, 0, 0], "is_female": [0, 1, 1]}, "'is_male'"),
        ({"old": [True, False, False], "is_old": [1, 0, 0]}, "'old'"),
        ({"is_male": [1, 0, 0], "sex": ["m", "f", "f"]}, "'is_male'"),
        ({"price": [3.5, -2, 7], "copy": [3.5, -2, 7]}, "'price'"),
        ({"code": [0, 1, 2], "kind": [0, 1, 2]}, "'code'"),
        ({"is_ash": [1, 0, 0], "is_oak": [0, 0, 1], "kind": ["ash", "birch", "oak"]}, "'is_ash', 'is_oak'"),
        ({"is_ash": [1, 0, 0], "kind": ["ash", "birch", "oak"]}, None),
        ({"is_male": [1, 0, 1], "is_female": [0, 1, 1]}, None),
        ({"a": [0.25, 1, 0], "b": [0.75, 0, 0], "c": [0, 0, 1]}, None),
        ({"a": [1, 0, 0], "b": [1, 0, 0], "c": [0, 0, 1]}, None),
    ],
)
def test_an_input_that_is_the_target_once_more_is_pointed_at(columns, by):
    frame = pd.DataFrame({name: cells * 12 for name, cells in columns.items()})
    how = {"targets": "values"} if "copy" in columns else {}
    told = leaks(frame, **how)
    assert len(told) == bool(by)
    if by:
        assert f"the last column, can be told in every row from {by}: leave out what is not known" in told[0]


def test_of_a_few_rows_or_of_a_table_to_test_on_no_leak_is_told(recwarn):
    frame = pd.DataFrame({"a": np.sqrt(np.arange(36)), "bit": KIND == 0, "label": (KIND + np.arange(36)) % 2})
    frame.to_csv("t.csv", index=False)
    frame.assign(label=frame["bit"].astype(int)).to_csv("new.csv", index=False)
    load("t.csv", test_data="new.csv")
    few = pd.DataFrame({"a": [1, 0, 2.5, 1, 2.5, 0, 1], "b": [1, 0, 2.5, 1, 2.5, 0, 1]})
    few.to_csv("t.csv", index=False)
    load("t.csv", targets="values")
    assert [str(w.message) for w in recwarn] == []
    few.iloc[[*range(7), 0]].to_csv("t.csv", index=False)
    load("t.csv", targets="values")
    assert ["can be told in every row from 'a'" in str(w.message) for w in recwarn] == [True]


def test_columns_are_looked_through_to_the_end_for_what_gives_the_target_away():
    frame = pd.concat([SPREAD.astype(float)] * 20, ignore_index=True)
    copy = pd.DataFrame({"a": frame["kind_ash"] + 0.5, "b": frame["kind_ash"] + 0.5})
    for table, how in ((frame, {}), (copy, {"targets": "values"})):
        assert len(leaks(table, **how)) == 1
        row = 600 if "a" in table else table.index[table["kind_cedar"] == 0][-1]
        table.iloc[row, :-1] = 0.5  # sums with the target to what it did
        assert leaks(table, **how) == []


def test_no_input_of_ordinary_data_gives_the_target_away():
    from sklearn import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("iris", "wine", "breast_cancer", "diabetes", "digits"):
            frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
            frame.to_csv("t.csv", index=False)
            load("t.csv", targets="values" if name == "diabetes" else None)


@pytest.mark.parametrize(
    ("labels", "outputs", "said"),
    [(["x", "y"], 3, True), (["x", "y"], 2, False), (["x", "y"], 1, False), ([0, 1], 3, False)],
)
def test_more_outputs_than_classes_with_names_are_pointed_at(labels, outputs, said, recwarn):
    table("a,label", [1.5, 2.5, 3, 2], labels * 2)
    load("t.csv", targets=of("sigmoid", "quadratic", outputs))
    says = f"has 2 classes, and the network {outputs} outputs: give it one for each"
    assert [says in str(w.message) for w in recwarn] == [True] * said
