"""Every limit of the wire API, with its reason. SQS = Amazon SQS API Reference and Developer Guide."""

from __future__ import annotations

from typing import Final

# Batches (SQS: SendMessageBatch and its sisters)
BATCH_ENTRIES_MAX: Final = 10
BATCH_ID_CHARACTERS_MAX: Final = 80
BATCH_BYTES_MAX: Final = 1_048_576  # the sum of all entries, attributes included

# Messages (SQS: message quotas)
ATTRIBUTE_NAME_CHARACTERS_MAX: Final = 256
ATTRIBUTE_TYPE_CHARACTERS_MAX: Final = 256
NUMBER_DIGITS_MAX: Final = 38
NUMBER_CHARACTERS_MAX: Final = 512  # 38 digits may be spread over zeros; longer texts are refused
NUMBER_EXPONENT_MIN: Final = -128  # a Number is from 10^-128 …
NUMBER_EXPONENT_MAX: Final = 126  # … to 10^126
DELAY_MAX_S: Final = 900
SEQUENCE_NUMBER_BASE: Final = 18_800_000_000_000_000_000  # AWS's numbers have 20 digits and start with 188

# Receives (SQS: ReceiveMessage, ChangeMessageVisibility)
RECEIVE_MESSAGES_MAX: Final = 10
WAIT_MAX_S: Final = 20
VISIBILITY_MAX_S: Final = 43_200

# Queues (SQS: ListQueues, TagQueue, AddPermission, SetQueueAttributes)
PAGE_MAX: Final = 1_000
TAGS_MAX: Final = 50  # what TagQueue takes in one call, and AWS's advice for a queue
TAG_KEY_CHARACTERS_MAX: Final = 128
TAG_VALUE_CHARACTERS_MAX: Final = 256
KMS_REUSE_MIN_S: Final = 60
KMS_REUSE_MAX_S: Final = 86_400
KMS_REUSE_DEFAULT_S: Final = 300

# A whole request: a batch of 1 MiB of which every character is escaped as \u0061, and what is around it. The listener
# lets larger ones through, for the native API.
REQUEST_BYTES_MAX: Final = 8 * 1_048_576

# The Query protocol: a full request has 10 entries of 10 attributes of 4 parameters
QUERY_PARAMETERS_MAX: Final = 4_000
QUERY_DEPTH_MAX: Final = 8  # SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.StringListValue.1 has 7 parts

# What is kept in memory to save work. Its keys are the clients' words, so their number and their length are bounded.
PARSED_URLS_MAX: Final = 10_000
URL_CHARACTERS_MAX: Final = 1_024  # host names have 253, queue names 80
HOSTS_MAX: Final = 256
VIEWS_MAX: Final = 256
VIEW_REQUEST_BYTES_MAX: Final = 4_096  # of a request whose list of attribute names is kept
