"""Every reader of jaxprobe, by name."""

from fuzzing import data_files, model_files, sae_files, tokenizer_files
from fuzzing.reader import Reader

READERS: dict[str, Reader] = {
    **model_files.READERS,
    **tokenizer_files.READERS,
    **sae_files.READERS,
    **data_files.READERS,
}
