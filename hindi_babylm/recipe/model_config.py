"""What is wrong in `model_config`, as far as the source of the config class tells it, without any import."""

from collections.abc import Mapping
from typing import Any

from hindi_babylm.modeling import BELOW_ONE, CONFIG_CLASSES, DEBERTA_CONVOLUTION, DEBERTA_POSITIONS, HEADS, WIDTH
from hindi_babylm.recipe.checking import Key, check_value, show
from hindi_babylm.recipe.stock import StockField, config_fields
from hindi_babylm.storage import UserError, suggestion


def check_model_config(
    where: str, *, architecture: str, settings: Mapping[str, Any], shortest: int, block_size: str
) -> None:
    """Raise UserError for unknown fields, types, sizes below 1, widths that do not divide, and too few positions.

    `where` names `model_config` in errors and `block_size` the key that asks for `shortest` positions. An
    architecture without a line in `CONFIG_CLASSES`, and whatever passes here, is tried by `modeling.check_settings`.
    """
    for name in ("n_positions", "max_position_embeddings"):
        positions = settings.get(name)
        if isinstance(positions, int) and positions < shortest:
            raise UserError(
                f"{where}.{name} = {positions}: {block_size} is longer: lower block_size to {positions}, or leave "
                f"{name} out"
            )
    found = config_fields(architecture, CONFIG_CLASSES[architecture]) if architecture in CONFIG_CLASSES else None
    if found is None:
        return
    fields, second_names = found
    for name, value in settings.items():
        declared = fields.get(second_names.get(name, name))
        if name == "model_type" and value != architecture:
            raise UserError(f"{where}.model_type = {show(value)}: model.architecture says {architecture}: leave it out")
        if name == "rope_theta" and declared is None and "rope_parameters" in fields:
            way_out = f'{{"rope_parameters": {{"rope_type": "default", "rope_theta": {show(value)}}}}}'
            raise UserError(f"{where}.rope_theta = {show(value)}: transformers 5 takes it as {way_out}")
        if declared is None:
            own = sorted(name for name, entry in fields.items() if entry.hint is not Any)
            raise UserError(f"{where}: {CONFIG_CLASSES[architecture]} has no field {name!r}; {suggestion(name, own)}")
        if declared.hint is not Any:
            check_value(f"{where}.{name}", value, Key("model", declared.hint, _checks(name, declared), None))
    _check_heads(where, settings, second_names, fields)
    if architecture == "deberta-v2":
        _check_relative_positions(where, settings)
        _check_convolution(where, settings)
    rotation = settings.get("rope_parameters")
    if rotation is not None:
        _check_rotation(f"{where}.rope_parameters", rotation)


def _check_rotation(where: str, rotation: Any) -> None:
    """Check the base of the rotary positions; their scalings stretch a trained model, and this one is fresh."""
    if not isinstance(rotation, dict):
        wanted = '{"rope_type": "default", "rope_theta": 10000.0}'
        raise UserError(f"{where} = {show(rotation)}: expected an object such as {wanted}")
    for name, value in rotation.items():
        if name not in ROTATION:
            raise UserError(f"{where}: unknown key {name!r}; {suggestion(name, ROTATION)}")
        check_value(f"{where}.{name}", value, ROTATION[name])
    if missing := ROTATION.keys() - rotation.keys():
        raise UserError(f"{where} = {show(rotation)}: {' and '.join(sorted(missing))} must be given")


def _check_relative_positions(where: str, settings: Mapping[str, Any]) -> None:
    """Check what a DeBERTa tells positions by: the class ignores names that it does not know, and does without any."""
    own = {**DEBERTA_POSITIONS, **settings}
    kinds = own["pos_att_type"] or []
    kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
    for name, parts, known in (
        ("pos_att_type", kinds, ("c2p", "p2c")),
        ("norm_rel_ebd", [own["norm_rel_ebd"]], ("layer_norm", "none")),
    ):
        if unknown := [part for part in parts if part not in known]:
            raise UserError(f"{where}.{name} = {show(settings[name])}: unknown {unknown[0]!r}; {suggestion('', known)}")
    if settings.get("position_buckets") == 1:
        raise UserError(f"{where}.position_buckets = 1: expected 2 or more, or -1 for none")
    if not own["relative_attention"]:
        for name in ("pos_att_type", "norm_rel_ebd", "share_att_key", "position_buckets", "max_relative_positions"):
            if settings.get(name):
                raise UserError(
                    f"{where}.{name} = {show(settings[name])} has no effect with relative_attention false: leave one "
                    "of them out"
                )
    if not (own["relative_attention"] and kinds) and not own["position_biased_input"]:
        missing = "pos_att_type" if own["relative_attention"] else "relative_attention"
        raise UserError(
            f"{where}.{missing} = {show(settings[missing])} leaves the model without positions: set "
            f"position_biased_input to true, or leave {missing} out"
        )


def _check_convolution(where: str, settings: Mapping[str, Any]) -> None:
    """Check the convolution beside the first layer of a DeBERTa, whose kernel must have a middle."""
    own = {**DEBERTA_CONVOLUTION, "hidden_size": WIDTH, **settings}
    kernel, groups = own["conv_kernel_size"], own["conv_groups"]
    if kernel < 0 or (kernel and kernel % 2 == 0):
        raise UserError(f"{where}.conv_kernel_size = {kernel}: expected an odd number, or 0 for no convolution")
    for name in ("conv_groups", "conv_act"):
        if not kernel and own[name] != DEBERTA_CONVOLUTION[name]:
            raise UserError(
                f"{where}.{name} = {show(own[name])} has no effect with conv_kernel_size 0: set conv_kernel_size to 3, "
                f"or leave {name} out"
            )
    if own["hidden_size"] % groups:
        raise UserError(f"{where}.conv_groups = {groups} is no divisor of hidden_size {own['hidden_size']}: change one")


def _checks(name: str, declared: StockField) -> dict[str, Any]:
    """Return what a field takes: whole numbers count layers, heads or widths, but for ids and `BELOW_ONE`."""
    counts = declared.hint in (int, int | None) and not name.endswith("_id") and name not in BELOW_ONE
    return {**({"low": 1} if counts else {}), **({"choices": declared.choices} if declared.choices else {})}


def _check_heads(
    where: str, settings: Mapping[str, Any], second_names: Mapping[str, str], fields: Mapping[str, StockField]
) -> None:
    """Check that the heads divide the width, and the heads of keys and values, where there are some, all heads."""
    given = {second_names.get(name, name): value for name, value in settings.items()}
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": 1}
    told, found = {}, {}
    for name, default in sizes.items():
        own = second_names.get(name, name)
        found[name] = given.get(own) or default
        told[name] = f"{own} {found[name]}{'' if own in given else ' (default)'}"
    for whole, part in (("hidden_size", "num_attention_heads"), ("num_attention_heads", "num_key_value_heads")):
        if found[whole] % found[part]:
            raise UserError(f"{where}: {told[whole]} is no multiple of {told[part]}: change one of them")
    head = given.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
    if "rope_parameters" in fields and head % 2:
        raise UserError(f"{where}: heads of {head} dimensions cannot be rotated in pairs (RoPE): make them even")


ROTATION = {
    "rope_type": Key("model", str, {"choices": ("default",)}, None),
    "rope_theta": Key("model", float, {"above": 0}, None),
}
