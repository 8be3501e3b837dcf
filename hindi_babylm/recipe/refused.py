"""Stock keys that would break what a run promises, or that would be ignored."""

_PUBLISHING = "a run is published once, when its results are there: leave it out, and set push_to_hub"
_ONE_EVALUATION = "an evaluation returns two exact numbers a block and keeps nothing else: leave it out"
_ALL_DONE = "a run always trains and scores the test split, and eval_strategy says when it evaluates: leave it out"

# Key -> why, and the way out. Their defaults are accepted.
REFUSED = {
    "auto_find_batch_size": "the batch is global_batch_size and nothing else; lower per_device_train_batch_size",
    "average_tokens_across_devices": "a step's loss is the mean over the tokens of all processes: leave it out",
    "batch_eval_metrics": "the validation loss is computed over all blocks: leave it out",
    "bf16_full_eval": "evaluations during a run are done in its precision, the final ones in fp32: set precision",
    "dataloader_drop_last": "every block is trained on; none is dropped: leave it out",
    "dataloader_in_order": "a resumed run would see other blocks: leave it out",
    "disable_tqdm": "bars are shown on a terminal only: send stderr to a file to be without them",
    "do_eval": _ALL_DONE,
    "do_predict": _ALL_DONE,
    "do_train": _ALL_DONE,
    "enable_jit_checkpoint": "SIGTERM already ends a run with a checkpoint: leave it out",
    "eval_do_concat_batches": _ONE_EVALUATION,
    "eval_use_gather_object": _ONE_EVALUATION,
    "fp16_full_eval": "evaluations during a run are done in its precision, the final ones in fp32: set precision",
    "hub_always_push": _PUBLISHING,
    "hub_strategy": _PUBLISHING,
    "hub_token": "a recipe is published with its results: log in with `hf auth login`, or set HF_TOKEN",
    "ignore_data_skip": "a resumed run would see other blocks: leave it out",
    "include_for_metrics": _ONE_EVALUATION,
    "label_names": "the labels of a block are its own tokens: leave it out",
    "length_column_name": "all blocks have one length, block_size: leave it out",
    "local_rank": "the launcher sets it: start with accelerate launch or torchrun",
    "logging_nan_inf_filter": "it hides the losses by which a diverged run is stopped: leave it out",
    "parallelism_config": "JSON cannot hold it: give it to accelerate launch",
    "prediction_loss_only": _ONE_EVALUATION,
    "remove_unused_columns": "a block has no column to spare: leave it out",
    "save_on_each_node": "the run folder is one, and the first process writes it: leave it out",
    "save_only_model": "a checkpoint without its optimizer could not be resumed; final_model is the model alone",
    "skip_memory_metrics": "the peak memory stands in results.json anyway: leave it out",
    "train_sampling_strategy": "blocks are shuffled anew in each epoch, by seed and data_seed: leave it out",
    "use_cache": "training computes every position anew; the exported model has its cache on: leave it out",
}
