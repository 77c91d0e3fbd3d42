"""Texts to calibrate, record and evaluate with: files to token sequences."""

import hashlib
import json
import pathlib
import re
from html.parser import HTMLParser

import numpy as np

from .errors import InputError, IoError, UsageError

TEXT_SUFFIXES = (".txt", ".text", ".md", ".html", ".htm", ".xhtml", ".jsonl")
SHORTEST_PARAGRAPH = 60  # shorter ones are titles and captions
PIECE_CHARACTERS = 8  # for each token of a sequence: about twice of what most texts need
BATCH_TOKENS = 2048


class _Prose(HTMLParser):
    """Collects the paragraphs of a page: character data inside p, li and div class="para"."""

    SKIPPED = {"script", "style", "pre", "nav", "head", "table"}
    WITHOUT_END = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta",
                   "source", "track", "wbr"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.paragraphs = [""]
        self._open = []  # (tag, begins a paragraph)

    def handle_starttag(self, tag, attrs):
        if tag in self.WITHOUT_END:
            return
        classes = (dict(attrs).get("class") or "").split()
        begins = tag in ("p", "li") or (tag == "div" and "para" in classes)
        self._open.append((tag, begins))
        if begins:
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        # An end tag closes what is still open inside it, too.
        for place in range(len(self._open) - 1, -1, -1):
            if self._open[place][0] == tag:
                if any(begins for _, begins in self._open[place:]):
                    self.paragraphs.append("")
                del self._open[place:]
                return

    def handle_data(self, data):
        if any(tag in self.SKIPPED for tag, _ in self._open):
            return
        if not any(begins for _, begins in self._open):
            return
        first, *others = re.split(r"\n[ \t]*\n", data)
        self.paragraphs[-1] += first
        self.paragraphs.extend(others)


def html_to_prose(page):
    """The prose of an HTML page, one paragraph a line."""
    parser = _Prose()
    parser.feed(page)
    parser.close()
    paragraphs = (re.sub(r"[\s\u00a0]+", " ", text).strip() for text in parser.paragraphs)
    return "\n".join(text for text in paragraphs if len(text) > SHORTEST_PARAGRAPH)


def _read_file(path):
    try:
        text = path.read_text(encoding="utf-8", errors="strict")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise IoError(f"{path}: cannot read: {error.strerror}") from None
    if path.suffix in (".html", ".htm", ".xhtml"):
        return html_to_prose(text)
    if path.suffix == ".jsonl":
        return "\n".join(_jsonl_texts(path, text))
    return text


def _jsonl_texts(path, lines):
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise InputError(f'{path}:{number}: no "text" field')
        yield record["text"]


def read_text(path):
    """The text of a file (plain, .html as prose, .jsonl with a "text" field), or of all files of
    those kinds in a folder, in sorted order."""
    path = pathlib.Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in TEXT_SUFFIXES)
        if not files:
            raise InputError(f"{path}: no text files ({', '.join(TEXT_SUFFIXES)})")
        return "\n".join(_read_file(file) for file in files)
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    return _read_file(path)


def adds_bos(tokenizer):
    """Whether the tokenizer begins a text with its BOS token."""
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def to_sequences(tokenizer, text, length, place):
    """int64 [num_sequences, length]: the text tokenized as one and cut; the remainder is dropped.
    Each sequence begins with BOS (one token more) if the tokenizer adds one."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    sequences = _cut(ids, length)
    if len(sequences) == 0:
        raise InputError(f"{place}: {len(ids)} tokens, fewer than one sequence of {length}")
    return _with_bos(tokenizer, sequences)


def _cut(ids, length):
    count = len(ids) // length
    return np.asarray(ids[:count * length], dtype=np.int64).reshape(count, length)


def _with_bos(tokenizer, sequences):
    if not adds_bos(tokenizer):
        return sequences
    bos = np.full((len(sequences), 1), tokenizer.bos_token_id, dtype=np.int64)
    return np.concatenate([bos, sequences], axis=1)


def enough_sequences(tokenizer, text, length, place, num_tokens, seed):
    """to_sequences, but of a text much longer than `num_tokens` only of pieces drawn with `seed`, for
    the time that a tokenizer takes."""
    characters = PIECE_CHARACTERS * length
    wanted = 2 * -(-num_tokens // length)
    places = len(text) // characters
    if places > 2 * wanted:
        chosen = np.random.default_rng(seed).choice(places, wanted, replace=False)
        pieces = [_from_first_word(text[at * characters:(at + 1) * characters])
                  for at in sorted(chosen.tolist())]
        tokens = tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
        sequences = np.concatenate([_cut(ids, length) for ids in tokens])
        if len(sequences) * length >= num_tokens:
            return _with_bos(tokenizer, sequences)
    return to_sequences(tokenizer, text, length, place)


def _from_first_word(piece):
    """A piece without the word that its beginning may have cut, as far as words are divided at all."""
    found = re.search(r"\s", piece[:len(piece) // 4])
    return piece[found.end():] if found else piece


def calibration_sequences(tokenizer, paths, length, num_tokens, seed, at_most=False):
    """[count, length] token ids, drawn from all texts alike: the fewest sequences that hold `num_tokens`
    tokens, or (at_most) the most that hold no more; one at least."""
    by_text = [enough_sequences(tokenizer, read_text(path), length, path, num_tokens, seed)
               for path in paths]
    if at_most:
        num_tokens -= num_tokens % by_text[0].shape[1]
    return choose_sequences(by_text, num_tokens, seed)


def choose_sequences(by_text, num_tokens, seed):
    """Picks sequences for calibration: in turn one of each text, in an order drawn with `seed`,
    until there are `num_tokens` tokens or no more text; then shuffled. All of equal length.

    by_text: one array [num_sequences, length] a text. Returns [count, length]."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(sequences)) for sequences in by_text]
    length = by_text[0].shape[1]
    wanted = max(1, -(-num_tokens // length))
    chosen = []
    for turn in range(max(map(len, by_text))):
        for sequences, order in zip(by_text, orders):
            if turn < len(order) and len(chosen) < wanted:
                chosen.append(sequences[order[turn]])
    chosen = np.stack(chosen)
    return chosen[rng.permutation(len(chosen))]


def in_batches(sequences):
    """Arrays [count, length] of neighbours of equal length, up to BATCH_TOKENS tokens in each."""
    batches = []
    for ids in sequences:
        last = batches[-1] if batches else []
        if last and len(last[0]) == len(ids) and (len(last) + 1) * len(ids) <= BATCH_TOKENS:
            last.append(ids)
        else:
            batches.append([ids])
    return [np.stack(batch) for batch in batches]


def digest_of_tokens(sequences):
    """A hexadecimal digest of token ids, one array a sequence."""
    digest = hashlib.sha256()
    for ids in sequences:
        digest.update(len(ids).to_bytes(8, "little") + np.ascontiguousarray(ids, "<i8").tobytes())
    return digest.hexdigest()[:32]
