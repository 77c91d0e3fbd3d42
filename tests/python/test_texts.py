"""Files to token sequences."""

import numpy as np
import pytest
from moefy.errors import InputError, UsageError
from moefy.texts import (calibration_sequences, choose_sequences, digest_of_tokens, enough_sequences,
                         html_to_prose, in_batches, read_text, to_sequences)

LONG = "This sentence is certainly longer than the sixty characters that are asked for."


def test_prose_is_what_stands_in_paragraphs_items_and_para_divisions():
    page = f"""<html><head><p>{LONG} head</p></head><body>
      <h1>{LONG} heading</h1>
      <p>{LONG}  one\n two&nbsp;three</p><li>{LONG} item</li>
      <div class="para note">{LONG} para</div><div class="other">{LONG} other</div>
      <p>short</p><pre><p>{LONG} pre</p></pre><table><tr><td><p>{LONG} cell</p></td></tr></table>
    </body></html>"""
    assert html_to_prose(page).split("\n") == [f"{LONG} one two three", f"{LONG} item",
                                               f"{LONG} para"]


def test_a_blank_line_and_an_inner_paragraph_begin_new_ones():
    page = f"<p>{LONG} a\n \n{LONG} b<div class='para'>{LONG} c</div>{LONG} d</p>{LONG} outside"
    assert html_to_prose(page).split("\n") == [f"{LONG} {name}" for name in "abcd"]


def test_an_end_tag_closes_what_is_still_open_inside_it():
    # The second <p> is not inside the first, whose end is missing.
    page = f"<div><p>{LONG} a<pre>{LONG} code</div><p>{LONG} b</p>"
    assert html_to_prose(page).split("\n") == [f"{LONG} a", f"{LONG} b"]


def test_a_folder_is_its_text_files_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n\n{"text": "and more"}\n')
    (tmp_path / "c.bin").write_bytes(b"\0")
    assert read_text(tmp_path) == "first\nand more\nsecond"


@pytest.mark.parametrize(("name", "content", "error", "message"), [
    ("x.txt", b"\xff\xfe", InputError, "not UTF-8"),
    ("x.jsonl", b'{"text": 3}', InputError, ":1: no \"text\""),
    ("x.jsonl", b"{", InputError, ":1: not JSON"),
])
def test_files_that_are_no_text_are_named(tmp_path, name, content, error, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_text(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_text(tmp_path / "none.txt")


class LetterTokenizer:
    bos_token_id = 1

    def __init__(self, bos):
        self.bos = bos
        self.letters = 0

    def __call__(self, text, add_special_tokens=True, verbose=True):
        if isinstance(text, list):
            return {"input_ids": [self(part, add_special_tokens)["input_ids"] for part in text]}
        self.letters += len(text)
        ids = [ord(letter) for letter in text]
        return {"input_ids": [1, *ids] if self.bos and add_special_tokens else ids}


def test_sequences_are_cut_from_one_text_and_the_rest_is_dropped():
    plain = to_sequences(LetterTokenizer(bos=False), "abcdefgh", 3, "x")
    assert plain.tolist() == [[97, 98, 99], [100, 101, 102]]
    with_bos = to_sequences(LetterTokenizer(bos=True), "abcdefgh", 3, "x")
    assert with_bos.tolist() == [[1, 97, 98, 99], [1, 100, 101, 102]]
    with pytest.raises(InputError, match="2 tokens, fewer than one sequence of 3"):
        to_sequences(LetterTokenizer(bos=False), "ab", 3, "x")


def test_of_a_long_text_only_some_pieces_are_tokenized():
    words = "".join(f"{number:07} " for number in range(20_000))
    tokenizer = LetterTokenizer(bos=True)
    sequences = enough_sequences(tokenizer, words, 16, "x", 160, seed=0)
    assert tokenizer.letters < 0.02 * len(words)
    assert sequences.shape[0] >= 10 and sequences.shape[1] == 17 and (sequences[:, 0] == 1).all()
    found = ["".join(map(chr, row[1:])) for row in sequences.tolist()]
    assert all(row in words and row[7] == row[15] == " " for row in found)  # no piece begins in a word
    assert len(set(found)) == len(found)

    def drawn(seed):
        return enough_sequences(LetterTokenizer(bos=True), words, 16, "x", 160, seed)

    assert np.array_equal(sequences, drawn(0)) and not np.array_equal(sequences, drawn(1))


def test_a_text_that_is_not_much_longer_than_needed_is_tokenized_whole():
    words = "".join(f"{number:07} " for number in range(100))
    whole = to_sequences(LetterTokenizer(bos=False), words, 16, "x")
    assert np.array_equal(enough_sequences(LetterTokenizer(bos=False), words, 16, "x", 160, 0), whole)


def test_pieces_of_few_tokens_lead_to_the_whole_text():
    class Frugal(LetterTokenizer):
        def __call__(self, text, **options):
            if isinstance(text, list):
                return {"input_ids": [[1]] * len(text)}
            return super().__call__(text, **options)

    words = "".join(f"{number:07} " for number in range(20_000))
    whole = to_sequences(LetterTokenizer(bos=False), words, 16, "x")
    assert np.array_equal(enough_sequences(Frugal(bos=False), words, 16, "x", 160, 0), whole)


def test_batches_hold_neighbours_of_equal_length(monkeypatch):
    monkeypatch.setattr("moefy.texts.BATCH_TOKENS", 8)
    sequences = [np.full(4, place) for place in range(5)] + [np.full(3, 5), np.full(20, 6), np.full(4, 7)]
    batches = in_batches(sequences)
    assert [batch.shape for batch in batches] == [(2, 4), (2, 4), (1, 4), (1, 3), (1, 20), (1, 4)]
    assert [row[0] for batch in batches for row in batch] == list(range(8))


def test_every_text_gives_in_turn_until_there_are_enough_tokens():
    first = np.arange(20).reshape(10, 2)
    second = np.arange(100, 104).reshape(2, 2)
    chosen = choose_sequences([first, second], 12, seed=0)
    assert chosen.shape == (6, 2)
    assert len({tuple(row) for row in chosen.tolist()}) == 6
    assert sum(row[0] >= 100 for row in chosen) == 2  # all that the second has
    again = choose_sequences([first, second], 12, seed=0)
    other = choose_sequences([first, second], 12, seed=1)
    assert np.array_equal(chosen, again) and not np.array_equal(chosen, other)


def test_calibration_sequences_hold_enough_tokens_or_at_most_as_many(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefgh" * 20)
    (tmp_path / "b.txt").write_text("ABCDEFGH" * 20)

    def shape(num_tokens, **options):
        return calibration_sequences(LetterTokenizer(bos=True), sorted(tmp_path.iterdir()), 4, num_tokens, 0,
                                     **options).shape

    assert shape(24) == (5, 5) and shape(25) == (5, 5) and shape(26) == (6, 5)
    assert [shape(tokens, at_most=True)[0] for tokens in (24, 25, 26, 4)] == [4, 5, 5, 1]


def test_the_digest_knows_ids_and_cuts():
    assert digest_of_tokens([np.array([1, 2, 3])]) == digest_of_tokens(np.array([[1, 2, 3]]))
    assert digest_of_tokens([[1, 2], [3]]) != digest_of_tokens([[1, 2, 3]])
    assert digest_of_tokens([[1, 2], [3]]) != digest_of_tokens([[1], [2, 3]])
