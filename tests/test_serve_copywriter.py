"""Lines of text by a language model: whatever its weights prefer, they say nothing but the facts."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.serve.copywriter import WAITING, Copywriter, Facts, says_only
from pipeline.serve.messages import Listed, Reason

HEAT = Facts("Heat", ("goes with Casino", "is also Crime, Thriller", "was taken by 31 in the last week"))


@pytest.fixture(scope="module", params=[0, 1, 2])
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of random weights whose tokens are pieces of words, saved."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(
        ["Try the film because it goes with another and is in the last week."] * 5, trainer
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<end>")
    torch.manual_seed(request.param)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def asked(spec: str) -> Copywriter:
    """With its model, or its problem."""
    found = Copywriter()
    loading = found.renew(spec)
    assert loading is not None
    loading.join()
    return found


def row(title: str | None, *reasons: str) -> Listed:
    told = [Reason(kind="history", text=text, weight=1.0) for text in reasons]
    return Listed(item_id="1", rank=1, score=1.0, propensity=1.0, title=title, reasons=told)


def random_rows(seed: int) -> list[Listed]:
    """Titles that look like joining words, hold signs, digits and other scripts; one to three reasons."""
    chance = np.random.default_rng(seed)
    titles = [
        "Heat",
        "If",
        "Try",
        "it",
        "A. I.",
        "M*A*S*H, 1970",
        "不能说的秘密",
        "Ποτέ",
        "the the",
        "For you",
        "12",
    ]
    reasons = [
        "goes with Casino",
        "also Crime, Thriller",
        "taken 3 times",
        "new here",
        "its text has in, it",
        ".",
    ]
    return [
        row(str(chance.choice(titles)), *chance.permutation(reasons)[: chance.integers(1, 4)].tolist())
        for _ in range(12)
    ]


def test_whatever_the_weights_prefer_a_line_says_only_facts(writer: str) -> None:
    copywriter, rows = asked(writer), random_rows(5)
    lines = copywriter.lines(rows)
    told = [(line, Facts.of(each)) for line, each in zip(lines, rows, strict=True) if line is not None]
    assert len(told) >= len(rows) - 2
    for line, facts in told:
        assert facts is not None
        assert says_only(line, facts)
        assert line.endswith(".")
        assert facts.title in line
        assert any(reason in line for reason in facts.reasons)
    assert copywriter.lines(rows) == lines


def test_of_a_batch_each_line_is_that_of_its_own_facts(writer: str) -> None:
    rows = random_rows(6)
    together = asked(writer).lines(rows)
    alone = [asked(writer).lines([each])[0] for each in rows[:3]]
    assert (
        sum(a == b for a, b in zip(alone, together, strict=False)) >= 2
    )  # ties may fall otherwise in a batch


@pytest.mark.parametrize(
    "line",
    [
        "Try Heat because it goes with Casino and is also Crime, Thriller.",
        "Why not try Heat? It was taken by 31 in the last week.",
        "Consider Heat: it is also Crime, Thriller. It goes with Casino.",
    ],
)
def test_facts_that_are_joined_pass(line: str) -> None:
    assert says_only(line, HEAT)


@pytest.mark.parametrize(
    "line",
    [
        "Try Heat because it is the best film and goes with Casino.",  # a claim
        "Try Heat because it goes with Ronin.",  # another title
        "Try Heat because it was taken by 310 in the last week.",  # another number
        "Try Heat because it was taken by 31 in the last month.",  # another span
        "Try Heat because it never goes with Casino.",  # denied
        "Try Ronin because it goes with Casino.",  # another item
        "Try Heat.",  # no reason
        "Try Heat: it goes with Casino and goes with Casino.",  # told twice
        "Try Heat: it goes with Casino. Buy it now.",
        "Try Heat: it goes with Casino",  # ends too early
        "",
    ],
)
def test_anything_else_is_refused(line: str) -> None:
    assert not says_only(line, HEAT)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("goes with Casino", "goes with Casino"),
        ("described like Casino", "is described like Casino"),
        ("its text has heist, night", 'has "heist, night" in its text'),
        ("its text is near yours", "has a text near yours"),
        ("also Crime", "is also Crime"),
        ("taken by 31 or more in the last day", "was taken by 31 or more in the last day"),
        ("much taken", "is much taken"),
        ("same director as Casino", "has the same director as Casino"),
        ("written by the same as Casino", "is written by the same as Casino"),
        ("about robbers, like Casino", "is about robbers, like Casino"),
        ("naming Lisbon, like Casino", "names Lisbon, like Casino"),
        ("image like that of Casino", "is like Casino by its image"),
        ("image like that of Lines like that of Ezra", "is like Lines like that of Ezra by its image"),
        ("linked with Casino", "is linked with Casino"),
        ("goes with \u202eCasino", "goes with Casino"),
        ("new here", "is new here"),
        ("fits what the model knows", "fits what the model knows"),
        ("who knows", None),
    ],
)
def test_a_reason_is_said_of_the_item(reason: str, said: str | None) -> None:
    facts = Facts.of(row("Heat", reason))
    assert (None if facts is None else facts.reasons[0]) == said


def test_nothing_to_tell_is_no_line(writer: str) -> None:
    rows = [row(None, "new here"), row("Heat"), row("Heat" * 100, "new here"), row(" ", "new here")]
    assert asked(writer).lines(rows) == [None] * 4


def test_a_title_that_takes_many_tokens_holds_no_other_line_up(writer: str) -> None:
    """Every token is a step of the whole list's lines."""
    alone, copywriter, heat = asked(writer), asked(writer), row("Heat", "new here")
    long = row("字" * 150, "new here")  # three tokens each
    assert copywriter.lines([long, heat]) == [None, *alone.lines([heat])]
    assert copywriter.lines([long]) == [None]


def test_a_title_like_the_token_that_ends_a_text_is_a_title(writer: str) -> None:
    [line] = asked(writer).lines([row("<end>", "new here")])
    assert line is not None
    assert "<end>" in line


def test_a_model_that_fails_is_a_problem_until_it_writes(
    writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copywriter, rows = asked(writer), [row("Heat", "new here")]
    assert copywriter._loaded is not None
    model = type(copywriter._loaded[0])

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(model, "generate", failing)
        assert copywriter.lines(rows) == [None]
        assert "no room" in str(copywriter.problem)
        assert "serve.copy_model" in str(copywriter.problem)
    assert copywriter.lines(rows) != [None]
    assert copywriter.problem is None


def _cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def _gguf_cut_short(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    # Version, tensors, one key of 7 letters, a text: its length is missing.
    head = struct.pack("<IQQQ", 3, 0, 1, 7) + b"general" + struct.pack("<I", 8)
    (folder / "model.gguf").write_bytes(b"GGUF" + head)


def _encoder(folder: Path) -> None:
    _rewrite(folder / "config.json", architectures=["LlamaModel"])


def _endless(folder: Path) -> None:
    _rewrite(folder / "tokenizer_config.json", eos_token=None)


def _rewrite(path: Path, **changed: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed), encoding="utf-8")


@pytest.mark.parametrize("spoil", [_cut_short, _gguf_cut_short, _encoder, _endless])
def test_a_folder_that_holds_no_model_that_writes_is_a_problem(
    writer: str, tmp_path: Path, spoil: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that died of it would leave everybody without lines, and nobody told."""
    folder = tmp_path / "spoilt"
    shutil.copytree(writer, folder)
    spoil(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())  # GGUF's packages are extras
    copywriter = asked(str(folder))
    assert copywriter.lines([row("Heat", "new here")]) == [None]
    assert "serve.copy_model" in str(copywriter.problem)
    assert "\n" not in str(copywriter.problem)


def test_whatever_a_library_says_of_a_model_is_a_problem(
    writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(*_: object) -> None:
        raise ZeroDivisionError("strange")

    monkeypatch.setattr("pipeline.serve.copywriter.load_causal", strange)
    assert "strange" in str(asked(writer).problem)


def test_a_model_that_is_not_there_is_a_problem_and_no_failure(tmp_path: Path, writer: str) -> None:
    rows = [row("Heat", "new here")]
    copywriter = asked(str(tmp_path / "none"))
    assert copywriter.lines(rows) == [None]
    assert "serve.copy_model" in str(copywriter.problem)
    loading = copywriter.renew(writer)
    assert loading is not None
    loading.join()
    assert copywriter.lines(rows) != [None]
    assert copywriter.problem is None
    copywriter.renew(None)
    assert copywriter.lines(rows) == [None]


def test_no_more_wait_for_the_model_than_may(writer: str) -> None:
    """Lists share the threads that would wait."""
    copywriter, rows = asked(writer), [row("Heat", "new here")]
    copywriter.lines(rows)
    with copywriter._lock:
        waiting = [threading.Thread(target=copywriter.lines, args=(rows,)) for _ in range(WAITING)]
        for thread in waiting:
            thread.start()
        while copywriter._waiting._value:
            threading.Event().wait(0.01)
        assert copywriter.lines(rows) == [None]
    for thread in waiting:
        thread.join()
    assert copywriter.lines(rows) != [None]
