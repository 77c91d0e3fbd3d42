"""How large the outputs of a model's FFN layers are beside the residual stream: what LLaMA-MoE's output
scale is made of."""

import numpy as np
import torch

from .ffn_inputs import input_module, owner_of


def modules_around(model, module):
    """The modules that a module is in, the next one first."""
    name = next(name for name, part in model.named_modules() if part is module)
    while name:
        name = name.rpartition(".")[0]
        yield model.get_submodule(name)


def block_of(model, module):
    """The member of a list of layers (of a layer's parts in T5) that a module is in."""
    inside = module
    for around in modules_around(model, module):
        if isinstance(around, torch.nn.ModuleList):
            break
        inside = around
    return inside


class ScaleWatcher:
    """Sums |FFN output| and |residual stream that it is added to| over real tokens and columns while the
    model runs. The FFN output is that of the down projection."""

    def __init__(self, model, layers):
        self._sums = np.zeros((len(layers), 2))
        self._mask = None
        self._seen = {}  # place of the layer -> tensors of the block that is running
        self._hooks = []
        config = model.config
        for place, layer in enumerate(layers):
            up, down = input_module(model, layer), owner_of(model, layer, "down")
            block = block_of(model, up)
            after = getattr(config, "use_parallel_residual", False)
            for part in () if after else block.children():
                self._hooks.append(part.register_forward_hook(self._see_part(place)))
            # BERT, and OPT at one size, normalise behind the addition: the FFN's input itself is added to.
            bare = hasattr(next(modules_around(model, down)), "LayerNorm") or \
                getattr(config, "do_layer_norm_before", True) is False
            self._hooks.append(up.register_forward_pre_hook(self._see_input(place, bare)))
            self._hooks.append(down.register_forward_hook(self._see_output(place)))
            self._hooks.append(block.register_forward_hook(self._see_block(place)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()

    def run(self, call, mask):
        """Calls call(), which runs the model on a batch with real tokens mask [batch, length]. Returns
        float64 [layers, 2]: the sums of FFN outputs and residual streams."""
        self._sums[:] = 0
        self._mask = mask
        try:
            call()
        finally:
            self._mask, self._seen = None, {}
        return self._sums.copy()

    def _add(self, place, what, values):
        # By token first: every number is then the sum of one thread.
        rows = values.detach().reshape(self._mask.numel(), -1)
        rows = rows[self._mask.reshape(-1).to(rows.device)]
        self._sums[place, what] = rows.abs().sum(1, dtype=torch.float64).cpu().numpy().sum()

    def _see_part(self, place):
        def look(module, arguments, output):
            if self._mask is not None and arguments and isinstance(output, torch.Tensor):
                self._seen.setdefault(place, {})[module] = (arguments[0], output)

        return look

    def _see_input(self, place, bare):
        def look(module, arguments):
            if self._mask is None:
                return
            inputs = arguments[0]
            if bare:
                self._add(place, 1, inputs)
                self._seen[place, "residual"] = True
                return
            for stream, output in self._seen.pop(place, {}).values():
                if output.data_ptr() == inputs.data_ptr():  # the norm between residual stream and FFN
                    self._add(place, 1, stream)
                    self._seen[place, "residual"] = True

        return look

    def _see_output(self, place):
        def look(module, arguments, output):
            if self._mask is not None:
                self._add(place, 0, output)
                self._seen[place, "output"] = output

        return look

    def _see_block(self, place):
        def look(module, arguments, output):
            if self._mask is None:
                return
            if not self._seen.pop((place, "residual"), False):
                # Attention and FFN are added at once, or nothing stands between stream and FFN.
                behind = output[0] if isinstance(output, tuple) else output
                self._add(place, 1, behind - self._seen[place, "output"].view_as(behind))
            del self._seen[place, "output"]

        return look
