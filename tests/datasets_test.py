"""Datasets: every published file against digests made by pandas, users' files against what pandas made of them."""

import csv
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import zstandard

from jaxprobe import assets, datasets
from tests import bare

# Made once with pandas 3.1.1 and scikit-learn's LabelEncoder, from the same wheel, by
#   for name, file in [*training, *shifted]:  # in master-file order; shifted names end in _OOD
#       table = pandas.read_csv(file)
#       y = LabelEncoder().fit_transform(table.target.values)
#       digest.update(json.dumps([name, table.prompt.tolist(), y.tolist()], ensure_ascii=False).encode())
PANDAS_SHA256 = "97d774103adbcea909dfd4271797d6cd455520d0e67c81f83030707eb9cde23e"
SHIFTED = (
    *("5_hist_fig_ismale", "6_hist_fig_isamerican", "7_hist_fig_ispolitician", "66_living-room"),
    *("67_social-security", "73_control-group", "87_glue_cola", "90_glue_qnli"),
)


@pytest.fixture(scope="module")
def wheel():
    try:
        return assets.fetch(datasets.DEFAULT_SOURCE)
    except assets.AssetError as error:
        pytest.skip(f"neither network nor cache: {error}")


def write(tmp_path, content: str | bytes, name: str = "mine.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_every_published_file_reads_as_pandas_reads_it(wheel):
    digest, rows, distinct = hashlib.sha256(), 0, set()
    for name in datasets.names():
        data = datasets.load(name)
        digest.update(dump(name, data))
        rows += len(data.texts)
        distinct.update(data.texts)
        # PROTOCOL: every set is exactly balanced, 728 to 5,000 rows.
        assert 728 <= len(data.texts) <= 5000
        assert data.y_N.sum() * 2 == len(data.texts) == len(data.y_N)
        assert data.y_N.dtype == np.int32
        assert data.name == name
    for name in datasets.shifted_names():
        data = datasets.load_shifted(name)
        digest.update(dump(f"{name}_OOD", data))
        assert len(data.texts) == (299 if name == "5_hist_fig_ismale" else 300)
    assert (len(datasets.names()), rows, len(distinct)) == (113, 334_092, 222_062)
    assert datasets.shifted_names() == SHIFTED
    assert digest.hexdigest() == PANDAS_SHA256


def dump(name, data) -> bytes:
    content = [name, list(data.texts), data.y_N.tolist()]
    return json.dumps(content, ensure_ascii=False).encode()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("below", ["", "data"])
def test_a_folder_in_the_papers_layout_is_a_source(wheel, tmp_path, compressed, below):
    name, end = "131_temp_cat_Typical Time", ".zst" if compressed else ""
    for file in (
        *("probing_datasets_MASTER.csv", f"cleaned_data/{name}.csv"),
        *("OOD data/87_glue_cola_OOD.csv", "OOD data/66_living-room_translations.csv"),
    ):
        data = assets.open_member(wheel, f"sae_probes/data/{file}.zst")
        plain = zstandard.ZstdDecompressor().stream_reader(data).read()
        path = tmp_path / below / (file + end)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if compressed else plain)
    source = str(tmp_path)
    assert datasets.names(source) == datasets.names()
    assert datasets.shifted_names(source) == ("87_glue_cola",)
    assert datasets.load(name, source).texts == datasets.load(name).texts
    assert datasets.load_shifted("87_glue_cola", source).y_N.tolist() == (
        datasets.load_shifted("87_glue_cola").y_N.tolist()
    )
    with pytest.raises(ValueError, match=r"lacks the file 'cleaned_data/5_hist_fig_ismale\.csv'"):
        datasets.load("5_hist_fig_ismale", source)


def test_unknown_names_list_the_nearest_first(wheel):
    with pytest.raises(ValueError, match="unknown dataset '66_livingroom'; known: 66_living-room,"):
        datasets.load("66_livingroom")
    with pytest.raises(ValueError, match="unknown shifted dataset '92_glue_sst2'; known: 90_glue_"):
        datasets.load_shifted("92_glue_sst2")


def test_a_folder_without_the_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold probing_datasets_MASTER\.csv"):
        datasets.names(tmp_path)


def test_a_users_file_keeps_its_texts_as_they_stand(tmp_path):
    content = (
        '\ufefftarget,id,prompt\r\nno,1,"two\nlines, and ""quotes"""\r\n\r\nyes,2, NA \r\n'
        'yes,3,None\r\nno,4,"carriage\rreturn \U0001f600"\r\n'
    )
    wanted = ('two\nlines, and "quotes"', " NA ", "None", "carriage\rreturn \U0001f600")
    half = len(content.encode()) // 2
    frames = [content.encode()[:half], content.encode()[half:]]
    two_frames = b"".join(zstandard.ZstdCompressor().compress(frame) for frame in frames)
    for path in (write(tmp_path, content), write(tmp_path, two_frames, "mine.csv.zst")):
        data = datasets.load(path)
        assert data.texts == wanted
        assert data.y_N.tolist() == [0, 1, 1, 0]
        assert data.label_names == ("no", "yes")
        assert (data.name, data.source) == ("mine", str(path))


@pytest.mark.parametrize(
    ("column", "wanted"),  # by pandas 3.1.1 and LabelEncoder
    [
        (["9", "10", "9"], [0, 1, 0]),  # as text 10 comes first
        (["1.5", "-2", "1.50"], [1, 0, 1]),
        (["1e3", "999", "999"], [1, 0, 0]),
        ([" 1", "0", "1"], [1, 0, 1]),
        (["1", "0", "01"], [1, 0, 1]),
        (["True", "false", "tRUE"], [1, 0, 1]),
        (["not_entailment", "1", "1"], [1, 0, 0]),
        (["b", "B", "b"], [1, 0, 1]),
        (["1_0", "9", "9"], [0, 1, 1]),  # Python would read numbers here, and in the next line
        (["\u0661", "9", "9"], [1, 0, 0]),
        (["True", "yes", "yes"], [0, 1, 1]),
        (["1e0", "+0", "01.0"], [1, 0, 1]),
        (["-0.0", "1", "0e5"], [0, 1, 0]),
        # Exactly, where float64 has one value for both.
        (["2e999", "1e999", "1e999"], [1, 0, 0]),
        (["1e-999", "0", "0"], [1, 0, 0]),
        (["9007199254740993", "9007199254740992", "9007199254740992.0"], [1, 0, 0]),
        (["9" * 5000, "-" + "9" * 5000, "1"[:0] + "9" * 5000 + ".0"], [1, 0, 1]),
        (["nan", "inf", "inf"], [1, 0, 0]),  # no numbers here: by text
        (["1e9999999999999999999", "2", "2"], [0, 1, 1]),  # beyond any arithmetic: by text
    ],
)
def test_labels_are_ordered_as_pandas_and_label_encoder_order_them(tmp_path, column, wanted):
    rows = "".join(f"text {i},{target}\n" for i, target in enumerate(column))
    data = datasets.load(write(tmp_path, f"prompt,target\n{rows}"))
    assert data.y_N.tolist() == wanted
    assert data.label_names == (column[wanted.index(0)], column[wanted.index(1)])


GOOD = "prompt,target\na,0\nb,1\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"mine\.csv: the file is empty; it needs the columns prompt,target"),
        ("prompt,target\n", r"mine\.csv: .* two distinct values, got no rows"),
        ("text,target\na,0\n", r"line 1: wanted one column 'prompt', got 'text', 'target'"),
        ("prompt;target\na;0\n", r"wanted one column 'prompt', got 'prompt;target'; .*commas"),
        ("prompt,target,prompt\na,0,b\n", r"wanted one column 'prompt', got 'prompt', 'target'"),
        ('prompt,target\n"a\r\nb",0\n ,1\n', r"line 4: empty `prompt`; fill it in or delete"),
        (GOOD + "c,\n", r"line 4: empty `target`"),
        (GOOD + "\n\nc,maybe\n", r"line 6: third class 'maybe' after '0' and '1'; .*keep two"),
        ("prompt,target\na,1\nb,1.0\n", r"two distinct values, got only '1' in 2 rows; add rows"),
        (GOOD.encode() + b"caf\xe9,1\n", r"line 4: byte 0xe9 is not UTF-8; save"),
        (GOOD.encode("utf-16"), r"line 1: byte 0xff is not UTF-8"),
        (GOOD + "c, d,1\n", r"line 4: 3 fields where the header has 2; quote prompts"),
        (GOOD + "c\n", r"line 4: 1 fields where the header has 2"),
        (GOOD + '"c,1\nd,0\n', r"row that starts in line 4: unexpected end of data; .*quotes"),
        (GOOD + '"c"d,1\n', r"row that starts in line 4: ',' expected after '\"'"),
        (GOOD + "c\0,1\n", r"line 4: a zero byte, which no text holds; save the file as UTF-8"),
        (GOOD.encode("utf-16-le"), r"line 1: a zero byte"),
        (GOOD + "\ud800,1\n", r"line 4: byte 0xed is not UTF-8"),
        ("prompt,target\n" + "a,1\n" * 1_000_001, r"more than 1,000,000 lines; split the file"),
        (
            "x" * 5_000 + ",target\na,1\n",
            r"line 1: wanted one column 'prompt', got 'x+\.\.\. \(5,000",
        ),
        (
            GOOD + "c," + "9" * 5_000 + "\n",
            r"third class '9+\.\.\. \(5,000 characters\)' after '0'",
        ),
        (GOOD + "c" * 17_000_000 + ",1\n", r"line 4: field larger than field limit .*too long"),
        (zstandard.ZstdCompressor().compress(GOOD.encode())[:-4], r"data ends early; copy"),
        (
            "prompt,target" + ",x" * 10_000 + "\n",
            r"line 1: more than 10,000 fields in a row; leave",
        ),
        (GOOD + "a" + ",x" * 11_000 + "\n", r"line 4: more than 10,000 fields in a row"),
        (GOOD + 'a",' * 11_001 + "\n", r"line 4: more than 10,000 fields in a row"),
        (GOOD + '"",' * 11_001 + "\n", r"line 4: more than 10,000 fields in a row"),
        ('"prompt\n",' + '"\n",' * 11_001, r"line 11001: more than 10,000 fields in a row"),
        (
            f"prompt,target{',' * 9_000}\n" + f"a,1{',' * 9_000}\n" * 2_300,
            r"line 2222: more than 20,000,000 fields in all; leave out columns",
        ),
        (
            zstandard.ZstdCompressor().compress(b"") * 10_001,
            r"more than 10,000 Zstandard frames; compress it as one",
        ),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 40, r"broken Zstandard data"),
    ],
)
def test_bad_files_name_file_line_and_remedy(tmp_path, content, message):
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load(write(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path / "mine.csv"))
    assert "\n" not in str(caught.value)


def test_a_last_line_of_blanks_is_no_row(tmp_path):
    for tail in ("  ", "\t \n", "   \r\n", "\n"):
        data = datasets.load(write(tmp_path, f"prompt,target\na,1\nb,0 x\n{tail}"))
        assert data.texts == ("a", "b") and data.label_names == ("0 x", "1")
    for content in ("prompt,target\na,1\n  \nb,0\n", 'prompt,target\na,1\n"b\n  \n'):
        with pytest.raises(ValueError, match="line 3"):
            datasets.load(write(tmp_path, content))


def test_missing_and_other_files(tmp_path):
    with pytest.raises(assets.AssetError, match=r"no file or folder .*gone\.csv"):
        datasets.load(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match=r"must be a \.csv or \.csv\.zst file, got .*mine\.tsv"):
        datasets.load(write(tmp_path, GOOD, "mine.tsv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=r"folder\.csv.* is a folder"):
        datasets.load(tmp_path / "folder.csv")


def test_prompts_of_any_length_are_read_and_csvs_own_limit_is_put_back(tmp_path):
    limit = csv.field_size_limit()
    long, lines = "word " * 200_000, '"' + "line\n" * 50_000 + '"'
    data = datasets.load(write(tmp_path, f"prompt,target\n{long},1\n{lines},0\n"))
    assert data.texts == (long, lines[1:-1])
    assert csv.field_size_limit() == limit
    with pytest.raises(ValueError, match="fields where the header has"):
        datasets.load(write(tmp_path, "prompt,target\na\n"))
    assert csv.field_size_limit() == limit


def test_commas_inside_quotes_are_no_fields(tmp_path):
    prose = {
        '"' + "a, " * 20_000 + '"': "a, " * 20_000,
        '"' + 'say ""x,"" ' * 20_000 + '"': 'say "x," ' * 20_000,
        '"' + "one, two,\n" * 20_000 + '"': "one, two,\n" * 20_000,
        '"' + '""x,""\n' * 20_000 + '"': '"x,"\n' * 20_000,
    }
    wide = ",".join(f"column {index}" for index in range(9_998))
    rows = "".join(f"{text},{index % 2}{',' * 9_998}\n" for index, text in enumerate(prose))
    data = datasets.load(write(tmp_path, f"prompt,target,{wide}\n{rows}"))
    assert data.texts == tuple(prose.values())
    # Frames without content, among them those that readers skip.
    packed = zstandard.ZstdCompressor().compress(GOOD.encode())
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    ends = skipped * 3 + zstandard.ZstdCompressor().compress(b"")
    assert datasets.load(write(tmp_path, packed + ends, "z.csv.zst")).texts == ("a", "b")


def _bomb(size: int) -> bytes:
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    block = b"a" * (1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(size >> 20)), packer.flush()])


HOSTILE = {
    "zst bomb": lambda path: path.write_bytes(_bomb(1 << 30)),
    "bomb behind a good frame": lambda path: path.write_bytes(
        zstandard.ZstdCompressor().compress(GOOD.encode()) + _bomb(1 << 30)
    ),
    "many frames": lambda path: path.write_bytes(_bomb(1 << 22) * 200),
    "empty frames": lambda path: path.write_bytes(
        zstandard.ZstdCompressor().compress(b"") * 1_000_000
    ),
    "empty columns": lambda path: path.write_bytes(
        zstandard.ZstdCompressor().compress(
            b"prompt,target" + b"," * 120 + b"\n" + (b"a,1" + b"," * 120 + b"\n") * 900_000
        )
    ),
    "wide rows with commas in quotes": lambda path: path.write_bytes(
        zstandard.ZstdCompressor().compress(
            b"prompt,target" + b"," * 9_000 + b"\n" + (b"a,1" + b',","' * 9_000 + b"\n") * 3_000
        )
    ),
    "columns of two letters": lambda path: path.write_bytes(
        b"prompt,target\n" + b"ab," * (20 << 20) + b"\n"
    ),
    "sparse": lambda path: (path.write_bytes(b"p"), os.truncate(path, 1 << 36)),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "digits and an x": lambda path: path.write_text(
        f"prompt,target\na,1\nb,0\nc,{'1' * 100_000}x\n"
    ),
    "dots": lambda path: path.write_text(
        f"prompt,target\na,1\nb,0\nc,{'1' * 100_000}.{'1' * 100_000}.\n"
    ),
    "blanks": lambda path: path.write_text(f"prompt,target\na,1\nb,0\nc,{' ' * 1_000_000}1 x\n"),
    "quotes": lambda path: path.write_text("prompt,target\n" + '"' * 3_000_001 + ",1\n"),
    "blank lines": lambda path: path.write_bytes(b"prompt,target\n" + b"\n" * (60 << 20)),
    "columns": lambda path: path.write_bytes(b"prompt,target\n" + b"," * (10 << 20)),
}


def test_a_hostile_file_ends_in_a_sentence_soon_and_in_little_memory(tmp_path):
    """In a child whose memory is limited; the clock is the processor's, for machines are busy."""
    for name, make in HOSTILE.items():
        make(tmp_path / f"{name}.csv")
    code = (
        bare.PACKAGE
        + """if True:
        import resource, sys, time, pathlib
        from jaxprobe import assets, datasets
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
        for path in sys.argv[1:]:
            start = time.process_time()
            try:
                datasets.load(path)
            except (ValueError, assets.AssetError) as error:
                said = str(error)
                assert pathlib.Path(path).name in said and len(said) < 700, said[:900]
                assert "Error" not in said, said
            else:
                raise AssertionError(path)
            print(f"{time.process_time() - start:.1f}", path)
    """
    )
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    times = [float(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(times) == len(HOSTILE)
    assert max(times) < 10, done.stdout  # 2 on a quiet machine; what is unbounded takes far longer


def test_a_file_may_be_given_a_name(tmp_path):
    path = write(tmp_path, GOOD)
    data = datasets.load(f"my set={path}")
    assert (data.name, data.source) == ("my set", str(path))
    assert datasets.name_of(f"my set={path}") == "my set"
    odd = write(tmp_path, GOOD, "lr=0.1.csv")
    assert datasets.load(odd).name == "lr=0.1"
    assert datasets.name_of("runs/a=b/x.csv.zst") == "x"
    for bad in (f"={path}", f" ={path}", f"a\x1b={path}"):
        with pytest.raises(ValueError, match="a name is given as NAME=SOURCE"):
            datasets.load(bad)
    with pytest.raises(ValueError, match="a dataset needs a name"):
        datasets.load(write(tmp_path, GOOD, ".csv"))


def test_a_folder_of_everything_is_no_source(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_MOST_FILES", 3)
    for number in range(5):
        write(tmp_path, GOOD, f"{number}.csv")
    with pytest.raises(ValueError, match="holds more than 3 files; name the folder that holds"):
        datasets.names(tmp_path)
