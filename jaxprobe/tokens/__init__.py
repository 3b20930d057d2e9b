"""Text to token ids, and token ids to batches of few fixed shapes.

The tokenizer comes from the model's own files, so ids cannot drift away from the weights.
"""

from jaxprobe.tokens.batching import BATCH_TOKENS as BATCH_TOKENS
from jaxprobe.tokens.batching import BUCKETS as BUCKETS
from jaxprobe.tokens.batching import batches as batches
from jaxprobe.tokens.directory import directory_files as directory_files
from jaxprobe.tokens.directory import from_directory as from_directory
from jaxprobe.tokens.gguf_vocabulary import from_gguf as from_gguf
from jaxprobe.tokens.gguf_vocabulary import load_tokenizer as load_tokenizer
from jaxprobe.tokens.tokenizer import BOS_SETTINGS as BOS_SETTINGS
from jaxprobe.tokens.tokenizer import Tokenizer as Tokenizer
from jaxprobe.tokens.tokenizer import opening_id as opening_id
from jaxprobe.tokens.tokenizer import token_ids as token_ids
