from __future__ import annotations

from pathlib import Path

import pytest
import torch
from served_models import peft_logits, save_adapter

from raytrain.errors import IntegrityError, RefusedError
from raytrain.models.inference import LoadedModel
from raytrain.serving.adapters.bank import AdapterBank, NoRoomError
from raytrain.serving.adapters.ranges import Window, first_fit, windows_of
from raytrain.serving.adapters.weights import AdapterWeights, Matrices, read_adapter

ROWS = {None: [5, 9, 17], "a": [40, 41, 42, 43], "b": [7, 7], "c": [300, 2, 1, 90, 11], "d": [12]}
MIB = 1 << 20


def logits_of(
    loaded: LoadedModel, bank: AdapterBank, rows: list[tuple[str | None, list[int]]]
) -> list[torch.Tensor]:
    """Of rows side by side, in one pass; padding is at the end, where nothing looks."""
    width = max(len(ids) for _, ids in rows)
    bank.use([(adapter, width) for adapter, _ in rows])
    with torch.inference_mode():
        ids = torch.tensor([ids + [0] * (width - len(ids)) for _, ids in rows])
        found = loaded.model(input_ids=ids, use_cache=False).logits
    return [one[: len(ids)] for one, (_, ids) in zip(found, rows, strict=True)]


def test_rows_of_all_adapters_side_by_side_are_as_peft_says_each(
    loaded: LoadedModel, base: Path, adapters: dict[str, Path]
) -> None:
    bank = AdapterBank(loaded.model, MIB)
    for digest, folder in adapters.items():
        bank.put(digest, read_adapter(folder))
    found = logits_of(loaded, bank, list(ROWS.items()))
    for (adapter, ids), logits in zip(ROWS.items(), found, strict=True):
        wanted = peft_logits(base, adapters.get(adapter or ""), ids)
        assert (logits - wanted).abs().max() < 1e-4, adapter
    base_alone, with_a = (peft_logits(base, one, ROWS["a"]) for one in (None, adapters["a"]))
    assert (base_alone - with_a).abs().max() > 0.05, "an adapter changes something"


def test_one_that_changes_the_head_is_refused(loaded: LoadedModel, adapters: dict[str, Path]) -> None:
    head, bank = loaded.model.get_output_embeddings(), AdapterBank(loaded.model, MIB)
    matrices = Matrices(torch.randn(2, head.in_features), torch.randn(2, head.out_features))
    modules = {**read_adapter(adapters["a"]).modules, "lm_head": matrices}
    with pytest.raises(RefusedError) as raised:
        bank.put("head", AdapterWeights(modules))
    assert "lm_head, which in a pass over several texts" in raised.value.why
    assert "head" not in bank


@pytest.mark.parametrize("chosen", [["a"], ["c"], ["a", "d"], [None], ["b", None]])
def test_any_of_them_alone(
    loaded: LoadedModel, base: Path, adapters: dict[str, Path], chosen: list[str | None]
) -> None:
    bank = AdapterBank(loaded.model, MIB)
    for digest, folder in adapters.items():
        bank.put(digest, read_adapter(folder))
    for adapter, logits in zip(
        chosen, logits_of(loaded, bank, [(one, ROWS[one]) for one in chosen]), strict=True
    ):
        wanted = peft_logits(base, adapters.get(adapter or ""), ROWS[adapter])
        assert (logits - wanted).abs().max() < 1e-4


def test_a_place_that_was_another_s_has_nothing_of_it(
    loaded: LoadedModel, base: Path, adapters: dict[str, Path]
) -> None:
    bank = AdapterBank(loaded.model, MIB)
    bank.put("c", read_adapter(adapters["c"]))
    bank.drop("c")
    bank.put("b", read_adapter(adapters["b"]))
    (logits,) = logits_of(loaded, bank, [("b", ROWS["b"])])
    assert (logits - peft_logits(base, adapters["b"], ROWS["b"])).abs().max() < 1e-4
    assert "c" not in bank and "b" in bank


def test_what_has_no_room_is_refused_and_the_others_answer_on(
    loaded: LoadedModel, base: Path, adapters: dict[str, Path]
) -> None:
    needed = read_adapter(adapters["a"]).num_bytes
    bank = AdapterBank(loaded.model, needed + needed // 2)
    bank.put("a", read_adapter(adapters["a"]))
    with pytest.raises(RefusedError, match="no room") as refused:
        bank.put("d", read_adapter(adapters["d"]))
    assert "4 of 6 ranks are taken" in refused.value.why
    with pytest.raises(RefusedError, match="too large") as never:
        bank.put("c", read_adapter(adapters["c"]))
    assert "it has rank 8" in never.value.why and not isinstance(never.value, NoRoomError)
    (logits,) = logits_of(loaded, bank, [("a", ROWS["a"])])
    assert (logits - peft_logits(base, adapters["a"], ROWS["a"])).abs().max() < 1e-4


def plain(rank: int) -> AdapterWeights:
    """Of one module, whatever it adds."""
    matrices = Matrices(torch.randn(rank, 32), torch.randn(rank, 32))
    return AdapterWeights({"model.layers.0.self_attn.q_proj": matrices})


def test_what_is_free_is_free_wherever_it_lies(
    loaded: LoadedModel, base: Path, adapters: dict[str, Path]
) -> None:
    """After some of many ranks have gone."""
    weights = {name: read_adapter(folder) for name, folder in adapters.items()}
    per_rank = weights["a"].num_bytes // weights["a"].rank
    bank = AdapterBank(loaded.model, 28 * per_rank)
    for name in ("a", "b", "c", "d"):  # 4, 2, 8 and 5 ranks
        bank.put(name, weights[name])
    bank.put("five", plain(5))
    bank.drop("a")
    bank.drop("c")
    with pytest.raises(NoRoomError) as full:
        bank.put("large", plain(17))
    assert "12 of 28 ranks are taken" in full.value.why and full.value.left_ranks == 11
    bank.put("large", plain(16))
    bank.drop("large")
    for name in ("a", "c"):
        bank.put(name, weights[name])
    for (adapter, ids), logits in zip(ROWS.items(), logits_of(loaded, bank, list(ROWS.items())), strict=True):
        assert (logits - peft_logits(base, adapters.get(adapter or ""), ids)).abs().max() < 1e-4, adapter


def test_way_is_made_by_one_adapter_at_a_time_and_all_answer_between(
    loaded: LoadedModel, base: Path, adapters: dict[str, Path]
) -> None:
    weights = {name: read_adapter(folder) for name, folder in adapters.items()}
    per_rank = weights["a"].num_bytes // weights["a"].rank
    bank = AdapterBank(loaded.model, 24 * per_rank)
    for number, name in enumerate(("a", "b", "d")):
        bank.put(f"gone-{number}", plain(4))
        bank.put(name, weights[name])
    for number in range(3):
        bank.drop(f"gone-{number}")
    assert not bank.make_way(plain(4)) and not bank.make_way(plain(14)), "it fits, and never will"
    rows = [(name, ROWS[name]) for name in ("a", "b", "d")]
    num_moved = 0
    while bank.make_way(plain(13)):
        num_moved += 1
        for (adapter, ids), logits in zip(rows, logits_of(loaded, bank, rows), strict=True):
            assert (logits - peft_logits(base, adapters[adapter], ids)).abs().max() < 1e-4, adapter
    assert num_moved == 3
    bank.put("large", plain(13))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["embed_tokens"]}, "no matrix of LoRA over a linear module"),
    ],
)
def test_what_cannot_be_mixed_is_refused(
    base: Path, tmp_path: Path, settings: dict[str, object], why: str
) -> None:
    folder = save_adapter(base, tmp_path / "odd", seed=1, **settings)  # type: ignore[arg-type]
    with pytest.raises(RefusedError) as refused:
        read_adapter(folder)
    assert why in refused.value.why and "merged" in refused.value.fix


def test_what_is_no_number_would_spoil_the_others_and_is_refused(base: Path, tmp_path: Path) -> None:
    folder = save_adapter(base, tmp_path / "nan", seed=1, size=float("inf"))
    with pytest.raises(RefusedError, match="cannot be served"):
        read_adapter(folder)


def test_a_damaged_file_is_named(base: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((adapters["a"] / "adapter_config.json").read_bytes())
    weights = (adapters["a"] / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors"):
        read_adapter(tmp_path)


def test_an_adapter_of_another_base_is_refused_by_module(
    loaded: LoadedModel, tmp_path: Path, adapters: dict[str, Path]
) -> None:
    from tiny_models import save_tiny_llama

    other = save_tiny_llama(tmp_path / "other", hidden_size=64)
    folder = save_adapter(other, tmp_path / "wide", seed=1)
    with pytest.raises(RefusedError) as refused:
        AdapterBank(loaded.model, MIB).put("wide", read_adapter(folder))
    assert "down_proj takes 64 and gives 32 numbers" in refused.value.why


@pytest.mark.parametrize(
    ("ranges", "found"),
    [
        ({}, []),
        ({1: (0, 4)}, [Window(0, 4, frozenset({1}))]),
        ({1: (0, 4), 2: (4, 8)}, [Window(0, 8, frozenset({1, 2}))]),
        ({2: (4, 8), 1: (0, 4)}, [Window(0, 8, frozenset({1, 2}))]),
        ({1: (0, 4), 2: (14, 18)}, [Window(0, 18, frozenset({1, 2}))]),
        ({1: (0, 4), 2: (15, 18)}, [Window(0, 4, frozenset({1})), Window(15, 18, frozenset({2}))]),
    ],
)
def test_windows_join_what_lies_near(ranges: dict[int, tuple[int, int]], found: list[Window]) -> None:
    assert windows_of(ranges, gap=10) == found


@pytest.mark.parametrize(
    ("taken", "size", "at"),
    [
        ([], 4, 0),
        ([(0, 4)], 4, 4),
        ([(0, 4), (8, 12)], 4, 4),
        ([(0, 4), (6, 12)], 4, 12),
        ([(0, 14)], 4, None),
    ],
)
def test_the_first_gap_that_is_large_enough(taken: list[tuple[int, int]], size: int, at: int | None) -> None:
    assert first_fit(taken, size, capacity=16) == at
