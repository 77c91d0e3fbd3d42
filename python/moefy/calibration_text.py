"""The token sequences that `moefy calibrate` fits on."""

import numpy as np
import torch

from .devices import uses_bf16
from .models import load_model, load_tokenizer
from .sampling import SAMPLED_LENGTH, sample_text
from .texts import calibration_sequences, digest_of_tokens


class CalibrationText:
    """What a model is calibrated on: sequences of texts, and those that the model writes by itself."""

    def __init__(self, args):
        """Reads the texts. A model writes whole sequences, so how many tokens is known beforehand."""
        self.model, self.device, self.seed = args.model, args.device, args.seed
        self.tokenizer = load_tokenizer(args.model)
        self.of_texts = []
        if args.text:
            self.of_texts = list(calibration_sequences(self.tokenizer, args.text, args.length,
                                                       args.tokens, args.seed))
        self.wanted = args.sampled if args.text else args.tokens
        self.sampled_length = min(args.length, SAMPLED_LENGTH)

    @property
    def identity(self):
        """What decides the tokens of one model, and how many there are."""
        written = -(-self.wanted // self.sampled_length) * self.sampled_length
        return {"tokens": sum(map(len, self.of_texts)) + written, "sampled": self.wanted,
                "sampled_length": self.sampled_length, "digest": digest_of_tokens(self.of_texts)}

    def sequences(self, progress, written=(), keep=lambda ids: None):
        """Arrays of token ids, one a sequence. written: the ids that the model wrote before, one after the
        other; if there are none, it writes them now and keep() gets them."""
        if self.wanted == 0:
            return self.of_texts
        if not written:
            written = sample_text(self._writer(), self.tokenizer, self.wanted, self.sampled_length,
                                  self.seed, progress).ravel().tolist()
            keep(written)
        return self.of_texts + list(np.reshape(written, (-1, self.sampled_length)))

    def _writer(self):
        """The model as it writes: in bf16 where that is multiplied, for every token reads all weights."""
        dtype = torch.bfloat16 if uses_bf16("auto", self.device) else torch.float32
        return load_model(self.model, dtype=dtype).to(self.device)
