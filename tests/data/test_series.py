"""Columns of CSV files, dates and separators, and errors for malformed files."""

import numpy as np
import pytest

from gradflow.data.published_series import PUBLISHED, read_published
from gradflow.data.series import read_series

SILSO = "1749;01;1749.042;  96.7; -1.0;   -1;1\n1749;02;1749.123; 104.3; -1.0;   -1;1\n"

FILES = {
    "bitcoin": "SNo,Name,Date,Close\n1,Bitcoin,2013-04-29 23:59:59,144.5\n"
    "2,Bitcoin,2013-04-30 23:59:59,139.0\n",
    "etth1": "date,HUFL,OT\n2016-07-01 00:00:00,5.8,30.5\n2016-07-01 01:00:00,5.6,27.8\n",
    "sunspots": SILSO,
    "temperatures": '"Date","Temp"\n"1981-01-01",20.7\n"1981-01-02",17.9\n',
}
"""The first rows of each published file, some columns of which are left out."""

EXPECTED = {
    "bitcoin": ([144.5, 139.0], ["2013-04-29T23:59:59", "2013-04-30T23:59:59"]),
    "etth1": ([30.5, 27.8], ["2016-07-01T00", "2016-07-01T01"]),
    "sunspots": ([96.7, 104.3], ["1749-01-01", "1749-02-01"]),
    "temperatures": ([20.7, 17.9], ["1981-01-01", "1981-01-02"]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_read(tmp_path, name):
    (tmp_path / PUBLISHED[name].file).write_text(FILES[name])
    values, times = EXPECTED[name]
    found = read_published(name, tmp_path)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.times, np.array(times, "datetime64[s]"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators_quotes_byte_order_marks_and_blank_lines_are_read(tmp_path, delimiter):
    path = tmp_path / "s.csv"
    rows = [("when", "x ", '"a, b;\tc"'), ("a", "1.5", '"2"'), ("b", " -3e2", "4")]
    text = "\r\n\r\n".join(delimiter.join(row) for row in rows)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    np.testing.assert_array_equal(read_series(path, "x").values, [1.5, -300])
    assert read_series(path, "x").times is None
    np.testing.assert_array_equal(read_series(path, "a, b;\tc").values, [2, 4])


def test_column_is_found_by_name_before_number_if_there_is_a_header(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("day,1\n10,20\n")
    np.testing.assert_array_equal(read_series(path, "1").values, [20])
    path.write_text("10,1\n30,40\n")
    np.testing.assert_array_equal(read_series(path, "1").values, [10, 30])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a column of .*, which are numbered 1 to 0, got '4'"),
        ("1;2;3\n", "a column of .*, which are numbered 1 to 3, got '4'"),
        ("1749;01;1;2\n1749;02;1;\n", "Expected a finite number in row 2 of .*csv', got ''"),
        ("1749;01;1;inf\n", "Expected a finite number in row 1 of .*csv', got 'inf'"),
        (
            "1749;01;1;5\n1749;13;1;5\n",
            "Expected a date such as 2014-01-31 .* row 2 .*, got '1749-13'",
        ),
        ("1749;01;1;5\nNaT;;1;5\n", "Expected a date such as 2014-01-31 in row 2 .*, got 'NaT-'"),
        ("999999999999;01;1;5\n", "Expected a date such as .*, got '999999999999-01'"),
        ("1749;01;1;5\n1749;02;1\n", "Expected 4 fields in row 2 of .*, as in row 1, got 3"),
        ("1749;02;1;5\n1749;01;1;5\n", "ascending order .*, got 1749-01-01.* after 1749-02-01"),
        ("1749;02;1;5\n1749;02;1;5\n", "Sort the rows and remove repeated dates"),
        ("1;2\n\xff\n", "Expected UTF-8 text in .*, got the byte 0xff at 4"),
        ('1749;01;1;5\n"' + "2" * 140_000, "cannot be read as CSV: field larger .* Close any"),
    ],
)
def test_malformed_file_raises(tmp_path, content, message):
    (tmp_path / PUBLISHED["sunspots"].file).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_published("sunspots", tmp_path)


@pytest.mark.parametrize("date", ["", " ", "NaT", "now", "today", "20140131", "2014-02-30", "٢٠١٤"])
def test_what_is_no_date_raises(tmp_path, date):
    (tmp_path / "s.csv").write_text(f"t,x\n{date},1\n")
    with pytest.raises(ValueError, match="Expected a date such as 2014-01-31 in row 2 of .*s.csv'"):
        read_series(tmp_path / "s.csv", "x", times=["t"])


@pytest.mark.parametrize(
    "number", ["1_0", "infinity", "1e999", "0x1", "1.5.2", "1'000", "٣", "--1"]
)
def test_what_is_no_plain_number_raises(tmp_path, number):
    (tmp_path / "s.csv").write_text(f"t,x\n2014,{number}\n")
    with pytest.raises(ValueError, match="Expected a finite number in row 2 of .*s.csv'"):
        read_series(tmp_path / "s.csv", "x")


@pytest.mark.parametrize("number", ["1", "+1.", "-.5", "1e5", "2.5E-3", " 7 "])
def test_numbers_in_every_usual_form_are_read(tmp_path, number):
    (tmp_path / "s.csv").write_text(f"t,x\n2014,{number}\n")
    assert read_series(tmp_path / "s.csv", "x").values == [float(number)]


def test_missing_file_raises_with_its_source(tmp_path):
    with pytest.raises(ValueError, match=r"'SN_m_tot_V2.0.csv' in .*sidc.be/SILSO"):
        read_published("sunspots", tmp_path)
    with pytest.raises(ValueError, match=r"with the file 'ETTh1.csv', got none"):
        read_published("etth1", None)
    with pytest.raises(ValueError, match="Unknown series 'sunspot'. Did you mean 'sunspots'"):
        read_published("sunspot", tmp_path)
