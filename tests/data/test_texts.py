from edgedistill.data.texts import Texts


def test_rows_are_mappings_when_asked_for():
    texts = Texts({"text": ["a", "b", "c"], "text_pair": ["x", "y", "z"]})
    assert list(texts) == [
        {"text": first, "text_pair": second} for first, second in ("ax", "by", "cz")
    ]
    assert (len(texts), texts[-1]) == (3, {"text": "c", "text_pair": "z"})
    assert list(texts[1:]) == list(texts)[1:]
    assert list(texts.pick([2, 0])) == [texts[2], texts[0]]
