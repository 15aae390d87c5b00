"""Many adapters over one base model in one forward pass.

The matrices of all adapters of a module lie under each other in two banks, and each adapter has a range of ranks, the
same in all modules. A pass multiplies with the window of the banks in which its adapters lie; each token keeps the
ranks of its own adapter, the others are multiplied by zero. This is two matrix products a module however many adapters
answer, instead of two for each of them, as in PEFT, or a pass over the whole model for each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raytrain.errors import RefusedError
from raytrain.serving.adapters.ranges import Window, first_behind_gap, first_fit, windows_of
from raytrain.serving.adapters.weights import AdapterWeights, Matrices


class NoRoomError(RefusedError):
    """The banks are full."""

    def __init__(self, what: str, *, why: str, fix: str, digest: str = "", left_ranks: int = 0) -> None:
        """digest: whose; left_ranks: that all others together may keep where it is to fit. Neither is pickled."""
        super().__init__(what, why=why, fix=fix)
        self.digest = digest
        self.left_ranks = left_ranks


@dataclass
class _Plan:
    """What the pass that runs now multiplies; one object that all modules share."""

    spans: tuple[tuple[int, int], ...] = ()
    """Start and stop of each window; the same object for as long as they are the same."""
    masks: tuple[Tensor | None, ...] = ()
    """Of each window 1 where a rank is of the token's own adapter, (tokens, ranks); None where all are."""


class _BankedLinear(nn.Module):
    """A linear module, and what the adapters of a pass add to it.

    Its matrices lie as they are multiplied with, (inputs, ranks) and (ranks, outputs). Turned, as PEFT has them, what
    they add to SmolLM2-135M's layers takes longer: one core of a 2.5 GHz Xeon (AVX-512) needs 4 in place of 7
    ms for one row and 16 ranks, 7 in place of 11 for 16 rows, and 34 in place of 40 for 16 rows and 128 ranks.
    """

    def __init__(self, base: nn.Linear, plan: _Plan, num_ranks: int) -> None:
        super().__init__()
        self.base, self._plan = base, plan
        device = base.weight.device
        self.a = torch.zeros((base.in_features, num_ranks), dtype=torch.float32, device=device)
        self.b = torch.zeros((num_ranks, base.out_features), dtype=torch.float32, device=device)
        self._spans: tuple[tuple[int, int], ...] = ()
        self._views: list[tuple[Tensor, Tensor]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.base(inputs)
        if not self._plan.spans:
            return outputs
        if self._spans is not self._plan.spans:
            self._spans = self._plan.spans
            self._views = [(self.a[:, start:stop], self.b[start:stop]) for start, stop in self._spans]
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        is_float32 = outputs.dtype == torch.float32
        flat = outputs.view(-1, outputs.shape[-1])
        added = flat if is_float32 else flat.float()
        for (a, b), mask in zip(self._views, self._plan.masks, strict=True):
            inner = rows @ a
            if mask is not None:
                inner.mul_(mask)
            added.addmm_(inner, b)
        return outputs if is_float32 else added.to(outputs.dtype).view_as(outputs)

    def resize(self, num_ranks: int) -> None:
        a, b = self.a, self.b
        kept = min(num_ranks, len(b))
        self.a = a.new_zeros((len(a), num_ranks))
        self.b = b.new_zeros((num_ranks, b.shape[1]))
        self.a[:, :kept], self.b[:kept] = a[:, :kept], b[:kept]
        self._spans, self._views = (), []


class AdapterBank:
    """Of one model, and for one thread. Under torch.inference_mode() only: outputs are added to in place."""

    def __init__(self, model: nn.Module, most_bytes: int) -> None:
        """most_bytes: that the banks of all modules may take."""
        self._model, self._most_bytes = model, most_bytes
        self._plan = _Plan()
        self._modules: dict[str, _BankedLinear] = {}
        self._ranges: dict[str, tuple[int, int]] = {}
        self._numbers: dict[str, int] = {}
        self._count = itertools.count()
        self._num_ranks = 0
        self._owners = torch.empty(0, dtype=torch.long, device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    @property
    def _taken(self) -> int:
        return sum(stop - start for start, stop in self._ranges.values())

    def __contains__(self, digest: str) -> bool:
        return digest in self._ranges

    def num_bytes(self, digest: str) -> int:
        """That its ranks take in the banks."""
        start, stop = self._ranges[digest]
        return (stop - start) * self._bytes_per_rank(self._modules)

    def put(self, digest: str, weights: AdapterWeights) -> None:
        """Let an adapter be used. Raises RefusedError where it does not fit the model, or what memory is left."""
        if digest in self._ranges:
            return
        found = {name: self._linear(name, one) for name, one in weights.modules.items()}
        widths = {name: one.base if isinstance(one, _BankedLinear) else one for name, one in found.items()}
        at = self._make_room(digest, weights.rank, {**self._modules, **widths})
        for known in self._modules.values():  # one that could not be put whole may have left something
            known.a[:, at : at + weights.rank] = 0
            known.b[at : at + weights.rank] = 0
        for name, module in found.items():
            if not isinstance(module, _BankedLinear):
                self._modules[name] = self._wrap(name, module)
            matrices, banked = weights.modules[name], self._modules[name]
            rank = len(matrices.a)
            banked.a[:, at : at + rank] = matrices.a.T
            banked.b[at : at + rank] = matrices.b
        self._ranges[digest] = (at, at + weights.rank)
        self._numbers[digest] = number = next(self._count)
        self._owners[at : at + weights.rank] = number

    def make_way(self, weights: AdapterWeights) -> bool:
        """Move one adapter towards the beginning where that is needed to put this one; False once nothing is. `put`
        moves what is left to be moved: who calls this before lets passes run between two of them."""
        modules = {
            **self._modules,
            **{name: self._linear(name, one) for name, one in weights.modules.items()},
        }
        most = self._most_bytes // self._bytes_per_rank(modules)
        if self._taken + weights.rank > most or self._gap(weights.rank, most) is not None:
            return False
        self._move_one()
        return True

    def drop(self, digest: str) -> None:
        """Forget an adapter; its ranks are free."""
        start, stop = self._ranges.pop(digest)
        del self._numbers[digest]
        self._owners[start:stop] = -1
        for module in self._modules.values():
            # Another may get a part of them in some modules only.
            module.a[:, start:stop] = 0
            module.b[start:stop] = 0

    def use(self, adapters: Sequence[tuple[str | None, int]]) -> None:
        """For the next passes: digests and how many tokens of each follow each other, in the order of the pass."""
        wanted = {digest for digest, _ in adapters if digest is not None}
        windows = windows_of({self._numbers[one]: self._ranges[one] for one in wanted})
        is_one = len({digest for digest, _ in adapters}) == 1
        owners = None if is_one else self._token_owners(adapters)
        spans = tuple((one.start, one.stop) for one in windows)
        if spans != self._plan.spans:
            self._plan.spans = spans
        self._plan.masks = tuple(None if owners is None else self._mask(one, owners) for one in windows)

    def _token_owners(self, adapters: Sequence[tuple[str | None, int]]) -> Tensor:
        numbers = [-2 if digest is None else self._numbers[digest] for digest, _ in adapters]
        counts = torch.tensor([count for _, count in adapters], device=self._device)
        return torch.tensor(numbers, device=self._device).repeat_interleave(counts)

    def _mask(self, window: Window, owners: Tensor) -> Tensor:
        return (self._owners[window.start : window.stop] == owners[:, None]).float()

    def _linear(self, name: str, matrices: Matrices) -> nn.Linear | _BankedLinear:
        try:
            module = self._model.get_submodule(name)
        except AttributeError:
            raise _misfit(f"the base model has no module {name}") from None
        base = module.base if isinstance(module, _BankedLinear) else module
        if base is self._model_head():
            raise RefusedError(
                "the adapter cannot be served beside others",
                why=f"it changes {name}, which in a pass over several texts is given their last tokens only",
                fix="export the format merged as well, and serve that",
            )
        if not isinstance(base, nn.Linear):
            raise _misfit(f"{name} is a {type(base).__name__}, and no linear module")
        shape, wanted = (matrices.a.shape[1], matrices.b.shape[1]), (base.in_features, base.out_features)
        if shape != wanted:
            raise _misfit(f"{name} takes {wanted[0]} and gives {wanted[1]} numbers, the adapter's {shape}")
        return module  # type: ignore[return-value]

    def _model_head(self) -> nn.Module | None:
        """Where tokens are chosen; None of a model that writes nothing."""
        find = getattr(self._model, "get_output_embeddings", None)
        found: nn.Module | None = None if find is None else find()
        return found

    def _wrap(self, name: str, base: nn.Linear) -> _BankedLinear:
        parent, _, last = name.rpartition(".")
        banked = _BankedLinear(base, self._plan, self._num_ranks)
        setattr(self._model.get_submodule(parent), last, banked)
        return banked

    def _make_room(self, digest: str, rank: int, modules: Mapping[str, nn.Linear | _BankedLinear]) -> int:
        most = self._most_bytes // self._bytes_per_rank(modules)
        held = f"{self._most_bytes >> 20} MiB hold"
        if rank > most:
            raise RefusedError(
                f"the adapter {digest} is too large",
                why=f"it has rank {rank}, and {held} {most} ranks in all",
                fix="give adapters more memory: engine.adapter_mib, for classifiers classification.adapter_mib",
            )
        if self._taken + rank > most:
            raise NoRoomError(
                f"there is no room for the adapter {digest}",
                why=f"it has rank {rank}; {self._taken} of {most} ranks are taken, which is all that {held}",
                fix="unload another, or give adapters more memory",
                digest=digest,
                left_ranks=most - rank,
            )
        while (at := self._gap(rank, most)) is None:
            self._move_one()
        if not at + rank <= self._num_ranks <= most:
            self._resize(min(most, max(at + rank, 2 * self._num_ranks)))
        return at

    def _gap(self, rank: int, most: int) -> int | None:
        """Where so many ranks are free in a row, of those that there may be."""
        ranges = list(self._ranges.values())
        used = max((stop for _, stop in ranges), default=0)
        return first_fit(ranges, rank, most) if used <= most else None

    def _move_one(self) -> None:
        """The first adapter behind a gap to the beginning of that gap."""
        digest, at = first_behind_gap(self._ranges)
        start, stop = self._ranges[digest]
        to = slice(at, at + stop - start)
        for module in self._modules.values():
            a, b = module.a[:, start:stop].clone(), module.b[start:stop].clone()  # the two may overlap
            module.a[:, start:stop], module.b[start:stop] = 0, 0
            module.a[:, to], module.b[to] = a, b
        self._owners[start:stop] = -1
        self._owners[to] = self._numbers[digest]
        self._ranges[digest] = (to.start, to.stop)

    def _resize(self, num_ranks: int) -> None:
        for module in self._modules.values():
            module.resize(num_ranks)
        owners = torch.full((num_ranks,), -1, dtype=torch.long, device=self._device)
        kept = min(num_ranks, self._num_ranks)
        owners[:kept] = self._owners[:kept]
        self._owners, self._num_ranks = owners, num_ranks

    @staticmethod
    def _bytes_per_rank(modules: Mapping[str, nn.Linear | _BankedLinear]) -> int:
        bases = [one.base if isinstance(one, _BankedLinear) else one for one in modules.values()]
        return 4 * sum(one.in_features + one.out_features for one in bases)


def _misfit(why: str) -> RefusedError:
    return RefusedError(
        "the adapter does not fit the base model", why=why, fix="serve it over the model it was trained on"
    )
