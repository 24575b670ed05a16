"""The grammar of names with options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradflow.spec import check_name, check_options, make_from_spec, parse_spec, split_specs

NAMES = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LITERALS = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
OPTIONS = st.dictionaries(st.from_regex(r"o_[a-z]{0,5}", fullmatch=True), LITERALS, max_size=3)


def written(name, options):
    return f"{name}({', '.join(f'{option}={value!r}' for option, value in options.items())})"


@given(NAMES, OPTIONS)
def test_what_is_written_is_what_is_parsed(name, options):
    assert parse_spec(written(name, options)) == (name, options)


@pytest.mark.parametrize(
    "spec, parsed",
    [
        ("lstm", ("lstm", {})),
        (" lstm ( bias = 2 , peephole = True ) ", ("lstm", {"bias": 2, "peephole": True})),
        ("lstm()", ("lstm", {})),
        ("path/to/my cell.py:make(gain=0.5)", ("path/to/my cell.py:make", {"gain": 0.5})),
        ("a(s='x(1, 2), y=3')", ("a", {"s": "x(1, 2), y=3"})),
        ("a(x=-1, y=1e999)", ("a", {"x": -1, "y": float("inf")})),
    ],
)
def test_specs_as_people_type_them(spec, parsed):
    assert parse_spec(spec) == parsed


@pytest.mark.parametrize(
    "spec, message",
    [
        ("lstm(forget_bias=2", "Expected options between brackets, got 'lstm.forget_bias=2'"),
        ("lstm(forget_bias=)", "Expected options between brackets, "),
        ("lstm(2)", r"Expected options by keyword, got 'lstm\(2\)'. Write name\("),
        ("lstm(a=1)(b=2)", "Expected options by keyword, "),
        ("lstm(a=1) + 2", "Expected options by keyword, "),
        ("lstm(a=b)", "Expected a literal as the value of each option, got"),
        ("lstm(a=__import__('os'))", "Expected a literal as the value of each option, got"),
        ("lstm(a=1 + x)", "Expected a literal as the value of each option, got"),
    ],
)
def test_what_is_not_a_name_with_literals_is_refused(spec, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        parse_spec(spec)


@given(st.lists(st.builds(written, NAMES, OPTIONS).filter(lambda spec: "\\" not in spec)))
def test_a_list_of_specs_is_split_where_it_was_joined(specs):
    assert split_specs(", ".join(specs)) == specs
    assert split_specs(",".join(specs) + ",") == specs


def test_commas_in_brackets_and_quotes_do_not_split():
    specs = "rnn, lstm(a=(1, [2, 3]), b='x,)(')  ,gru(c=\"it's, so\"),,"
    assert split_specs(specs) == [
        "rnn",
        "lstm(a=(1, [2, 3]), b='x,)(')",
        'gru(c="it\'s, so")',
    ]
    assert split_specs(" ") == []


def test_an_unknown_name_is_refused_with_the_nearest_and_all():
    check_name("cell", "lstm", ["rnn", "lstm"])
    with pytest.raises(ValueError) as error:
        check_name("cell", "lsmt", ["rnn", "lstm"], hint="Or write your own.")
    assert str(error.value) == (
        "Unknown cell 'lsmt'. Did you mean 'lstm'? Known: lstm, rnn. Or write your own."
    )
    with pytest.raises(ValueError, match="^Unknown cell 'xyz'. Known: lstm, rnn.$"):
        check_name("cell", "xyz", ["rnn", "lstm"])


def made_of(size, *, gain=1):
    return size * gain


def test_an_unknown_option_is_refused_with_the_nearest_and_all():
    check_options("cell", "mine", made_of, ["gain"], skip=1)
    check_options("cell", "mine", lambda **anything: None, ["gain"])
    with pytest.raises(ValueError) as error:
        check_options("cell", "mine", made_of, ["gian"])
    assert str(error.value) == (
        "Unknown option 'gian' of cell 'mine'. Did you mean 'gain'? Known: size, gain."
    )
    with pytest.raises(ValueError, match="'size' of cell 'mine'. Known: gain.$"):
        check_options("cell", "mine", made_of, ["size"], skip=1)
    with pytest.raises(ValueError, match="'x' of cell 'f'. Known: none.$"):
        check_options("cell", "f", lambda: None, ["x"])


def test_a_spec_is_made_by_the_factory_that_it_names():
    assert make_from_spec("number", "made(size=2, gain=3)", {"made": made_of}) == 6
    with pytest.raises(ValueError, match="^Unknown number 'maid'. Did you mean 'made'"):
        make_from_spec("number", "maid", {"made": made_of})
    with pytest.raises(ValueError, match="^Unknown option 'sise' of number 'made'"):
        make_from_spec("number", "made(sise=2)", {"made": made_of})


@pytest.mark.parametrize("deep", ["(" * 10_000, "[" * 150, "-" * 100_000 + "1", "1+" * 100_000])
def test_deep_nesting_is_refused_in_one_short_line(deep):
    with pytest.raises(ValueError, match="^Expected .*, got 'stack") as error:
        parse_spec(f"stack(cells={deep})")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("value", [3, None, b"lstm", ("lstm",)])
def test_what_is_not_a_text_is_refused(value, without_checks_of_types):
    for read in (parse_spec, split_specs, lambda value: check_name("cell", value, ["lstm"])):
        with pytest.raises(TypeError, match="Expected .* to be a text, got .* Write it in quotes"):
            read(value)


def test_a_long_name_is_cut_in_the_error():
    with pytest.raises(ValueError, match="^Unknown cell 'xxx") as error:
        check_name("cell", "x" * 100_000, ["lstm"])
    assert len(str(error.value)) < 500
