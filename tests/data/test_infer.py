import pytest

from edgedistill.data import infer
from edgedistill.data.tables import Table
from edgedistill.errors import DataError

COUNT = 20
TEXT = [f"please play song number {index}" for index in range(COUNT)]
OTHER = [f"and then another one, {index}" for index in range(COUNT)]
LABEL = ["play", "stop"] * (COUNT // 2)
IDS = [f"id-{index:04}" for index in range(COUNT)]
DATES = [f"2024-01-{index + 1:02} 10:00:00" for index in range(COUNT)]
FILES = [f"images/{index}.png" for index in range(COUNT)]


def columns(kind=None, told=None, **cells):
    return infer.columns(Table("train.csv", cells), told or {}, kind=kind)


@pytest.mark.parametrize("name", ["text", "utterance", "what they said"])
@pytest.mark.parametrize("label", ["label", "intent", "whatever"])
def test_one_text_and_one_label(name, label):
    found = columns(**{label: LABEL, name: TEXT})
    assert found == {"text": name, "label": label}


def test_ids_and_dates_are_no_candidates():
    found = columns(id=IDS, when=DATES, number=list(range(COUNT)), said=TEXT, kind_of=LABEL)
    assert found == {"text": "said", "label": "kind_of"}


def test_texts_without_spaces_between_words():
    chinese = [f"请播放第{index}首歌" for index in range(COUNT)]
    assert columns(id=IDS, said=chinese, label=LABEL)["text"] == "said"


def test_two_texts_are_an_error_that_lists_them_and_says_how_to_choose():
    with pytest.raises(DataError, match=r"'title', 'body': choose with --set data\.text=title"):
        columns(title=TEXT, body=OTHER, label=LABEL)
    assert columns(title=TEXT, body=OTHER, label=LABEL, told={"text": "body"})["text"] == "body"


@pytest.mark.parametrize(
    "pair", [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "context")]
)
def test_a_pair_when_so_named(pair):
    found = columns(**{pair[1]: OTHER, pair[0]: TEXT, "label": LABEL})
    assert found == {"text": pair[0], "text_pair": pair[1], "label": "label"}


def test_a_pair_when_told():
    found = columns(a=TEXT, b=OTHER, label=LABEL, told={"text": "b", "text_pair": "a"})
    assert found == {"text": "b", "text_pair": "a", "label": "label"}


def test_the_spoken_form_of_a_label_is_no_text():
    spoken = [f"the user wants to {label}" for label in LABEL]
    found = columns(text=TEXT, label=[0, 1] * (COUNT // 2), label_text=spoken)
    assert found == {"text": "text", "label": "label"}


def test_two_labels_are_an_error():
    with pytest.raises(DataError, match=r"'intent', 'topic'.*data\.label=intent"):
        columns(text=TEXT, intent=LABEL, topic=LABEL)
    with pytest.raises(DataError, match=r"'this', 'that'.*data\.label=this"):
        columns(text=TEXT, this=LABEL, that=LABEL)


def test_no_label_is_an_error_that_lists_the_columns():
    with pytest.raises(DataError, match=r"no column looks like the label \(it has 'text', 'id'\)"):
        columns(text=TEXT, id=IDS)


def test_an_unknown_column_names_the_nearest():
    with pytest.raises(DataError, match=r"no column 'txt' .*did you mean 'text'"):
        columns(text=TEXT, label=LABEL, told={"text": "txt"})


def test_images_by_their_cells():
    assert columns(file=FILES, label=LABEL) == {"image": "file", "label": "label"}
    assert columns(picture=[b"\x89PNG"] * COUNT, y=LABEL) == {"image": "picture", "label": "y"}


def test_images_beside_texts_are_to_be_chosen():
    with pytest.raises(DataError, match=r"data\.image=file or --set data\.text=caption"):
        columns(file=FILES, caption=TEXT, label=LABEL)
    assert columns("text", file=FILES, caption=TEXT, label=LABEL)["text"] == "caption"
    assert columns("image", file=FILES, caption=TEXT, label=LABEL)["image"] == "file"


def test_image_and_text_exclude_each_other():
    with pytest.raises(DataError, match="exclude each other"):
        columns(a=TEXT, b=FILES, label=LABEL, told={"text": "a", "image": "b"})


@pytest.mark.parametrize(
    ("role", "cells"),
    [
        ("text", {"text": TEXT, "label": LABEL}),
        ("text_pair", {"text": TEXT, "text_pair": OTHER, "label": LABEL}),
        ("image", {"image": FILES, "label": LABEL}),
        ("label", {"text": TEXT, "label": LABEL}),
        ("group", {"text": TEXT, "label": LABEL, "group": IDS}),
    ],
)
@pytest.mark.parametrize("told_kind", [True, False])
def test_each_role_can_be_named(role, cells, told_kind):
    kind = ("image" if "image" in cells else "text") if told_kind else None
    assert columns(kind, {role: role}, **cells) == {name: name for name in cells}
    assert columns(kind, {name: name for name in cells}, **cells) == {name: name for name in cells}


def test_what_is_named_must_be_what_the_task_reads():
    with pytest.raises(DataError, match=r"data\.image names a column of images.* reads texts"):
        columns("text", {"image": "file"}, file=FILES, said=TEXT, label=LABEL)


def test_texts_of_one_word_by_the_name_of_their_column():
    words = [f"word{'abcdefghij'[index % 10]}{index}" for index in range(COUNT)]
    assert columns(text=words, label=LABEL) == {"text": "text", "label": "label"}
    assert columns(Sentence=words, label=LABEL)["text"] == "Sentence"
    assert columns(text=words, said=TEXT, label=LABEL)["text"] == "said"
    with pytest.raises(DataError, match="no column looks like the text"):
        columns(text=list(range(COUNT)), label=LABEL)


@pytest.mark.parametrize("end", ["", " ", "\n1 2"])
def test_one_word_of_many_letters_takes_no_time(end):
    long = ["x" * 200_000 + end] * COUNT
    assert infer.WORDY.search(long[0]) is None or end.strip()
    with pytest.raises(DataError, match="no column looks like the text"):
        columns(url=long, label=LABEL)
    assert columns(text=long, label=LABEL)["text"] == "text"


@pytest.mark.parametrize(
    ("text", "wordy"),
    [("a b", True), ("1 b", True), ("a 1", True), ("1 2", False), ("ab", False), ("a ", False),
     (" a", False), ("1 2 3 c", True), ("1\n\nb", True), ("\u8bf7", True), ("", False)],
)  # fmt: skip
def test_two_words_and_a_letter_make_a_text(text, wordy):
    assert bool(infer.WORDY.search(text)) is wordy


def test_a_column_that_is_taken_says_as_what():
    with pytest.raises(DataError, match=r"the label \(it has 'text', 'label' as the group\)"):
        columns(text=TEXT, label=LABEL, told={"group": "label"})
    with pytest.raises(DataError, match=r"the text \(it has 'text' as the label, 'label'\)"):
        columns(text=TEXT, label=LABEL, told={"label": "text"})


def test_a_column_that_one_split_lacks_is_answered_with_those_that_it_has():
    table = Table("test.csv", {"utterance": TEXT, "intent": LABEL})
    roles = {"text": "text", "label": "intent"}
    with pytest.raises(DataError, match=r"\(the text\): it has 'utterance', 'intent'$"):
        infer.shared(table, roles, roles)
