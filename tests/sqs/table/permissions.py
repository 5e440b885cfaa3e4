"""AddPermission, RemovePermission, TagQueue, UntagQueue, ListQueueTags."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.sqs.table.rows import (
    ABSENT,
    API,
    BALLERINA,
    GUIDE,
    LS,
    NO_QUEUE,
    SNAPSHOT,
    TEXTS,
    Call,
    Error,
    Matcher,
    Row,
    attributes_of,
    call,
    invalid,
    like,
    missing,
    queue,
    refused,
    row,
)


def add(label: str = "l", accounts: list[str] | None = None, actions: list[str] | None = None) -> Call:
    return call(
        "AddPermission",
        QueueUrl="${url:q}",
        Label=label,
        AWSAccountIds=["111111111111"] if accounts is None else accounts,
        Actions=["ReceiveMessage"] if actions is None else actions,
    )


def remove(label: str = "l") -> Call:
    return call("RemovePermission", QueueUrl="${url:q}", Label=label)


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    """The answer that has a policy of these statements: of each, the members that are named."""

    def holds(value: Any) -> bool:
        found = json.loads(value)
        mine = found["Statement"]
        return (
            found["Version"] == "2008-10-17"
            and found["Id"].endswith("/SQSDefaultPolicy")
            and len(mine) == len(statements)
            and all(one.items() <= other.items() for one, other in zip(statements, mine, strict=True))
        )

    return {"Attributes": {"Policy": Matcher(f"a policy of {statements!r}", holds)}}


ROOT: Final = "arn:aws:iam::111111111111:root"
NOT_OWNED: Final = "Only the queue owner is allowed to invoke this action."
WSDL: Final = "Please refer to the appropriate WSDL for a list of valid actions."

ADD: Final = (
    row(
        "AddPermission: two accounts, one action",
        add("crossaccountpermission", ["111111111111", "668614515564"]),
        {},
        SNAPSHOT + "test_sqs_permission_lifecycle",
        setup=[queue()],
        then=[
            (
                attributes_of("Policy"),
                policy(
                    {
                        "Sid": "crossaccountpermission",
                        "Effect": "Allow",
                        "Principal": {"AWS": [ROOT, "arn:aws:iam::668614515564:root"]},
                        "Action": "SQS:ReceiveMessage",
                    }
                ),
            ),
            (remove("crossaccountpermission"), {}),
            (attributes_of("Policy"), {"Attributes": ABSENT}),
        ],
    ),
    row(
        "AddPermission: one account, two actions",
        add("l", actions=["SendMessage", "DeleteMessage"]),
        {},
        TEXTS + "AddPermission): with multiple statements; " + SNAPSHOT + "test_sqs_permission_lifecycle",
        setup=[queue()],
        then=[
            (
                attributes_of("Policy"),
                policy({"Principal": {"AWS": ROOT}, "Action": ["SQS:SendMessage", "SQS:DeleteMessage"]}),
            )
        ],
    ),
    row(
        "AddPermission: every action",
        add(actions=["*"]),
        {},
        API + "AddPermission",
        setup=[queue()],
        then=[(attributes_of("Policy"), policy({"Action": "SQS:*"}))],
    ),
    row(
        "AddPermission: a second label",
        add("crossaccountpermission2"),
        {},
        SNAPSHOT + "test_sqs_permission_lifecycle",
        setup=[queue(), add("crossaccountpermission")],
        then=[
            (attributes_of("Policy"), policy({"Sid": "crossaccountpermission"}, {"Sid": "crossaccountpermission2"})),
            (remove("crossaccountpermission"), {}),
            (attributes_of("Policy"), policy({"Sid": "crossaccountpermission2"})),
        ],
    ),
    row(
        "AddPermission: the label again",
        add("crossaccountpermission", ["668614515564"]),
        invalid("Label", "crossaccountpermission", "Already exists."),
        SNAPSHOT + "test_sqs_permission_lifecycle",
        setup=[queue(), add("crossaccountpermission")],
    ),
    row(
        "AddPermission: to a policy that was set",
        add("added", actions=["DeleteMessage"]),
        {},
        TEXTS + "AddPermission): by adding to existing Queue Policy",
        setup=[
            queue(
                Policy='{"Version":"2012-10-17","Statement":{"Sid":"first","Effect":"Allow","Principal":"*",'
                '"Action":"sqs:SendMessage","Resource":"*"}}'
            )
        ],
        then=[
            (
                attributes_of("Policy"),
                {
                    "Attributes": {
                        "Policy": Matcher(
                            "both statements, the version as it was",
                            lambda value: (
                                [s["Sid"] for s in json.loads(value)["Statement"]] == ["first", "added"]
                                and json.loads(value)["Version"] == "2012-10-17"
                            ),
                        )
                    }
                },
            )
        ],
    ),
    *(
        row(
            f"AddPermission: the action {action}",
            add(actions=[action]),
            invalid("ActionName", f"SQS:{action}", NOT_OWNED),
            TEXTS + "AddPermission): with forbidden Actions; " + GUIDE + "Access management, cross-account permissions",
            setup=[queue()],
        )
        for action in ("CreateQueue", "AddPermission", "SetQueueAttributes", "TagQueue")
    ),
    *(
        row(
            f"AddPermission: the action {action!r}",
            add(actions=[action]),
            invalid("ActionName", f"SQS:{action}", WSDL),
            "moto, tests/test_sqs/test_sqs.py: test_add_permission_errors, from AWS's answer",
            setup=[queue()],
        )
        for action in ("RemovePermissions", "receivemessage", "")
    ),
    row(
        "AddPermission: eight actions",
        add(
            actions=[
                "DeleteMessage",
                "GetQueueAttributes",
                "GetQueueUrl",
                "ListDeadLetterSourceQueues",
                "PurgeQueue",
                "ReceiveMessage",
                "SendMessage",
                "ChangeMessageVisibility",
            ]
        ),
        Error("OverLimit", "8 Actions were found, maximum allowed is 7.", 403),
        "moto, tests/test_sqs/test_sqs.py: test_add_permission_errors, from AWS's answer",
        setup=[queue()],
    ),
    row(
        "AddPermission: no actions",
        add(actions=[]),
        missing("Actions"),
        "moto, tests/test_sqs/test_sqs.py: test_add_permission_errors, from AWS's answer",
        setup=[queue()],
    ),
    row(
        "AddPermission: no accounts",
        add(accounts=[]),
        invalid("PrincipalId", "[]", "Unable to verify."),
        "moto, tests/test_sqs/test_sqs.py: test_add_permission_errors, from AWS's answer",
        setup=[queue()],
    ),
    row(
        "AddPermission: an account that is none",
        add(accounts=["12345"]),
        Error(
            "InvalidParameterValue", like(r"Value .* for parameter PrincipalId is invalid. Reason: Unable to verify.")
        ),
        API + "AddPermission: a 12-digit id",
        setup=[queue()],
    ),
    row("AddPermission: no label", add(""), missing("Label"), TEXTS + "AddPermission)", setup=[queue()]),
    row(
        "AddPermission: a label of 81 characters",
        add("l" * 81),
        Error("InvalidParameterValue", like(r"Value l{81} for parameter Label is invalid\..*")),
        API + "AddPermission: up to 80 characters",
        setup=[queue()],
    ),
    row("AddPermission: a label of 80 characters", add("l" * 80), {}, API + "AddPermission", setup=[queue()]),
    row("AddPermission: no queue", add(), NO_QUEUE, API + "AddPermission"),
    row(
        "AddPermission: twenty-one statements",
        add("one-more"),
        Error("OverLimit", "21 Statements were found, maximum allowed is 20.", 403),
        TEXTS + "AddPermission): with over statement limit",
        setup=[queue(), *(add(f"l{i}") for i in range(20))],
    ),
    row(
        "RemovePermission: a label that is not there",
        remove("crossaccountpermission2"),
        invalid("Label", "crossaccountpermission2", "can't find label."),
        SNAPSHOT + "test_sqs_permission_lifecycle",
        setup=[queue()],
    ),
    row(
        "RemovePermission: another label is there",
        remove("other"),
        invalid("Label", "other", "can't find label."),
        SNAPSHOT + "test_sqs_permission_lifecycle",
        setup=[queue(), add()],
        then=[(attributes_of("Policy"), policy({"Sid": "l"}))],
    ),
    row("RemovePermission: no label", remove(""), missing("Label"), TEXTS + "RemovePermission)", setup=[queue()]),
    row("RemovePermission: no queue", remove(), NO_QUEUE, API + "RemovePermission"),
)


def tag(**tags: str) -> Call:
    return call("TagQueue", QueueUrl="${url:q}", Tags=tags)


def tagged(tags: dict[str, str]) -> Call:
    return call("TagQueue", QueueUrl="${url:q}", Tags=tags)


def untag(*keys: str) -> Call:
    return call("UntagQueue", QueueUrl="${url:q}", TagKeys=list(keys))


TAGS_NOW: Final = call("ListQueueTags", QueueUrl="${url:q}")


def exactly(tags: dict[str, str]) -> dict[str, Any]:
    return {"Tags": Matcher(f"{tags!r} and no others", lambda value: (value or {}) == tags)}


KEY_RULE: Final = refused("Tag keys must be between 1 and 128 characters in length.")
VALUE_RULE: Final = refused("Tag values must be between 0 and 256 characters in length.")

TAGS: Final = (
    row(
        "TagQueue: three tags, one empty",
        tag(tag1="value1", tag2="value2", tag3=""),
        {},
        SNAPSHOT + "test_tag_untag_queue",
        setup=[queue()],
        then=[
            (TAGS_NOW, exactly({"tag1": "value1", "tag2": "value2", "tag3": ""})),
            (untag("tag1", "tag3"), {}),
            (TAGS_NOW, exactly({"tag2": "value2"})),
            (untag("tag2"), {}),
            (TAGS_NOW, exactly({})),
        ],
    ),
    row(
        "TagQueue: keys differ by case",
        tag(MyTag="value1", mytag="value2"),
        {},
        LS + "test_tags_case_sensitive",
        setup=[queue()],
        then=[(TAGS_NOW, exactly({"MyTag": "value1", "mytag": "value2"}))],
    ),
    row(
        "TagQueue: overwrites",
        tag(tag1="VALUE1", tag3="value3"),
        {},
        LS + "test_tag_queue_overwrites_existing_tag",
        setup=[queue(), tag(tag1="value1", tag2="value2")],
        then=[(TAGS_NOW, exactly({"tag1": "VALUE1", "tag2": "value2", "tag3": "value3"}))],
    ),
    row(
        "TagQueue: an empty key",
        tagged({"": "production"}),
        KEY_RULE,
        BALLERINA + "testTagQueueWithEmptyTagKey",
        setup=[queue()],
    ),
    row(
        "TagQueue: the longest key and value",
        tagged({"k" * 128: "v" * 256}),
        {},
        GUIDE + "Cost allocation tags",
        setup=[queue()],
        then=[(TAGS_NOW, exactly({"k" * 128: "v" * 256}))],
    ),
    row("TagQueue: a key of 129", tagged({"k" * 129: "v"}), KEY_RULE, GUIDE + "Cost allocation tags", setup=[queue()]),
    row("TagQueue: a value of 257", tag(k="v" * 257), VALUE_RULE, GUIDE + "Cost allocation tags", setup=[queue()]),
    row(
        "TagQueue: letters beyond ASCII, spaces and signs",
        tagged({"Kosten stelle/é+=.-:@": "ü ñ 日本"}),
        {},
        GUIDE + "Cost allocation tags: Unicode letters, digits, whitespace and _.:/=+-@",
        setup=[queue()],
        then=[(TAGS_NOW, exactly({"Kosten stelle/é+=.-:@": "ü ñ 日本"}))],
    ),
    *(
        row(
            f"TagQueue: the key {key!r}",
            tagged({key: "v"}),
            refused(like(".*aws:.*")),
            GUIDE + "Cost allocation tags: aws: is reserved",
            setup=[queue()],
        )
        for key in ("aws:x", "AWS:cost")
    ),
    row(
        "TagQueue: fifty tags",
        tagged({f"k{i}": "v" for i in range(50)}),
        {},
        API + "TagQueue: adding more than 50 tags to a queue isn't recommended",
        setup=[queue()],
    ),
    row(
        "TagQueue: fifty-one tags",
        tagged({f"k{i}": "v" for i in range(51)}),
        refused("Too many tags added for queue ${name:q}."),
        "moto, tests/test_sqs/test_sqs.py: test_tag_queue_errors, from AWS's answer",
        setup=[queue()],
        then=[(TAGS_NOW, exactly({}))],
    ),
    row(
        "TagQueue: no tags",
        tagged({}),
        missing("Tags"),
        "moto, tests/test_sqs/test_sqs.py: test_tag_queue_errors, from AWS's answer",
        setup=[queue()],
    ),
    row("TagQueue: no queue", tag(k="v"), NO_QUEUE, API + "TagQueue"),
    row(
        "UntagQueue: a key that is not there",
        untag("tag1", "tag3"),
        {},
        LS + "test_untag_queue_ignores_non_existing_tag",
        setup=[queue(), tag(tag1="value1", tag2="value2")],
        then=[(TAGS_NOW, exactly({"tag2": "value2"}))],
    ),
    row(
        "UntagQueue: no keys",
        untag(),
        refused("Tag keys must be between 1 and 128 characters in length."),
        "moto, tests/test_sqs/test_sqs.py: test_untag_queue_errors, from AWS's answer",
        setup=[queue()],
    ),
    row("UntagQueue: no queue", untag("k"), NO_QUEUE, API + "UntagQueue"),
    row("ListQueueTags: none", TAGS_NOW, exactly({}), LS + "test_queue_list_nonexistent_tags", setup=[queue()]),
    row("ListQueueTags: no queue", TAGS_NOW, NO_QUEUE, API + "ListQueueTags"),
)

ROWS: Final[tuple[Row, ...]] = (*ADD, *TAGS)
