"""Samples of what a finished model writes: continuations of the first words of documents."""

from typing import TYPE_CHECKING, Any

from hindi_babylm.console import track

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PROMPT_WORDS = 4
CONTINUATION_TOKENS = 48


def continue_texts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    texts: "Dataset",
    *,
    count: int = 3,
    seed: int = 0,
) -> list[dict[str, str]]:
    """Continue the first words of `count` documents, one a source where there are enough: prompt and continuation.

    Sampled with nucleus 0.9 (Holtzman et al. 2020) under a fixed seed. What comes out: README.md, "What comes out".
    """
    from transformers import set_seed

    first = {source: index for index, source in reversed(list(enumerate(texts["source"])))}
    rows = list(dict.fromkeys([*first.values(), *range(len(texts))]))[:count]
    set_seed(seed)
    continuations = []
    for row in track(rows, "Continuing texts", "texts"):
        prompt = " ".join(texts[row]["text"].split()[:PROMPT_WORDS])
        positions = model.config.max_position_embeddings
        inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
        # A prompt of long words may fill a short context: its end is what the continuation hangs on.
        inputs = {name: ids[:, -max(1, positions // 2) :] for name, ids in inputs.items()}
        room = positions - inputs["input_ids"].shape[1]
        generate: Any = model.generate
        ids = generate(
            **inputs,
            max_new_tokens=min(CONTINUATION_TOKENS, room),
            do_sample=True,
            top_p=0.9,
            pad_token_id=tokenizer.pad_token_id,
        )[0]
        text = str(tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        continuations.append({"prompt": prompt, "continuation": text})
    return continuations
