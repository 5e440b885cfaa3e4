"""URLs and regions in every form, and requests as they go over the wire: both protocols, GET and POST, what is wrong with them."""

from __future__ import annotations

from typing import Any, Final

from tests.sqs.table.rows import (
    API,
    GUIDE,
    ISSUE,
    LS,
    NO_QUEUE,
    OURS,
    Http,
    Matcher,
    Row,
    bodies,
    call,
    get,
    has,
    like,
    missing,
    queue,
    receive,
    row,
    send,
)

PATH: Final = "/000000000000/${name:q}"
FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
JSON_TYPE: Final = {"content-type": "application/x-amz-json-1.0"}


def signed(region: str, key: str = "test") -> dict[str, str]:
    """The header of a signature, of which without keys only the scope is read."""
    scope = f"{key}/20240101/{region}/sqs/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}


def post(form: str, *, target: str = "/", headers: dict[str, str] | None = None, save: str = "") -> Http:
    return Http("POST", target, {**FORM, **(headers or {})}, form, save)


def json_call(operation: str, body: str, *, target: str = "/", headers: dict[str, str] | None = None) -> Http:
    return Http("POST", target, {**JSON_TYPE, "x-amz-target": f"AmazonSQS.{operation}", **(headers or {})}, body)


def xml(*parts: str, status: int = 200) -> dict[str, Any]:
    return {"status": status, "type": "text/xml", "text": has(*parts)}


def xml_error(code: str, message: str, status: int = 400) -> dict[str, Any]:
    return xml("<Type>Sender</Type>", f"<Code>{code}</Code>", f"<Message>{message}</Message>", status=status)


def json_error(shape: str, code: str, message: str | Matcher, status: int = 400) -> dict[str, Any]:
    text = has(f'"__type":"{shape}"', message) if isinstance(message, str) else message
    return {"status": status, "text": text, "headers": {"x-amzn-query-error": f"{code};Sender"}}


# ------------------------------------------------------------------------------------------------------- forms of URLs

URLS: Final = (
    *(
        row(
            f"GetQueueAttributes: the URL {url}",
            call("GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn"]),
            {"Attributes": {"QueueArn": "${arn:q}"}},
            source,
            setup=[queue()],
        )
        for url, source in (
            ("https://localhost:9324/000000000000/${name:q}", OURS + ": the scheme does not matter"),
            (
                "http://elsewhere:1/000000000000/${name:q}",
                LS + "test_external_host_via_header_complete_message_lifecycle",
            ),
            ("https://sqs.us-east-1.amazonaws.com/000000000000/${name:q}", GUIDE + "Queue URLs"),
            (
                "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/${name:q}",
                "LocalStack, strategy standard",
            ),
            (
                "https://queue.amazonaws.com/000000000000/${name:q}",
                "LocalStack, strategy domain; the oldest form of AWS",
            ),
            ("https://us-east-1.queue.amazonaws.com/000000000000/${name:q}", "LocalStack, strategy domain"),
            ("http://localhost:4566/queue/us-east-1/000000000000/${name:q}", "LocalStack, strategy path"),
            ("http://localhost:9324/queue/${name:q}", "ElasticMQ before 0.15"),
            ("http://localhost:9324/000000000000/${name:q}/", OURS + ": a slash at the end does not matter"),
            ("${name:q}", LS + "test_posting_to_queue_via_queue_name"),
        )
    ),
    *(
        row(
            f"GetQueueAttributes: the URL {url}, which names no queue here",
            call("GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn"]),
            NO_QUEUE,
            source,
            setup=[queue()],
        )
        for url, source in (
            ("http://localhost:9324/999999999999/${name:q}", API + "QueueDoesNotExist"),
            ("http://localhost:9324/queue/eu-west-1/000000000000/${name:q}", OURS + ": a queue of another region"),
            ("http://sqs.eu-west-1.localhost:9324/000000000000/${name:q}", OURS + ": a queue of another region"),
            ("http://localhost:9324/000000000000/${name:Q}", API + "Queue URLs are case-sensitive"),
            ("http://localhost:9324/000000000000/${name:q}?x=1", OURS),
            ("http://localhost:9324/000000000000/a%2Fb", OURS),
            ("http://localhost:9324/", "docs/sqs.md: a URL that names no queue"),
            ("http://localhost:9324/abc/def/ghi", "docs/sqs.md: a URL that names no queue"),
            ("https://example.com/some/page", "docs/sqs.md: a URL that names no queue"),
            ("arn:aws:sqs:us-east-1:000000000000:q", OURS),
            ("${arn:q}", OURS + ": an ARN is no URL"),
            ("not a url", OURS),
            ("x" * 2_000, OURS),
        )
    ),
    row(
        "GetQueueAttributes: no URL",
        call("GetQueueAttributes", AttributeNames=["All"]),
        missing("QueueUrl"),
        API + "GetQueueAttributes: QueueUrl is required",
    ),
    row(
        "GetQueueAttributes: an empty URL",
        call("GetQueueAttributes", QueueUrl="", AttributeNames=["All"]),
        missing("QueueUrl"),
        OURS,
    ),
    row(
        "CreateQueue: by a host that names a region",
        post("Action=CreateQueue&QueueName=${name:q}", headers={"host": "sqs.eu-west-1.localhost:9324"}),
        xml("<QueueUrl>http://sqs.eu-west-1.localhost:9324/000000000000/${name:q}</QueueUrl>"),
        "docs/sqs.md, Queue URLs",
        then=[
            (
                post(
                    "Action=GetQueueAttributes&AttributeName.1=QueueArn",
                    target=PATH,
                    headers={"host": "sqs.eu-west-1.localhost:9324"},
                ),
                xml("arn:aws:sqs:eu-west-1:000000000000:${name:q}"),
            )
        ],
    ),
    row(
        "CreateQueue: by the old host of a region",
        post("Action=CreateQueue&QueueName=${name:q}", headers={"host": "eu-west-1.queue.localhost:9324"}),
        xml("<QueueUrl>http://eu-west-1.queue.localhost:9324/000000000000/${name:q}</QueueUrl>"),
        LS + "test_list_queues_multi_region_with_endpoint_strategy_domain",
    ),
    row(
        "CreateQueue: by the old host without a region",
        post("Action=CreateQueue&QueueName=${name:q}", headers={"host": "queue.localhost:9324"}),
        xml("<QueueUrl>http://queue.localhost:9324/000000000000/${name:q}</QueueUrl>"),
        LS + "test_list_queues_multi_region_with_endpoint_strategy_domain: us-east-1 is not named",
    ),
    row(
        "GetQueueUrl: answers have the host of the request",
        post("Action=GetQueueUrl&QueueName=${name:q}", headers={"host": "127.0.0.1:12345"}),
        xml("<QueueUrl>http://127.0.0.1:12345/000000000000/${name:q}</QueueUrl>"),
        "LocalStack, test_get_queue_url_contains_request_host",
        setup=[queue()],
    ),
    row(
        "GetQueueUrl: the signature names the region",
        post("Action=GetQueueUrl&QueueName=${name:q}", headers=signed("eu-central-1")),
        xml_error(
            "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist for this wsdl version."
        ),
        LS + "test_get_queue_url_multi_region",
        setup=[queue()],
    ),
    row(
        "CreateQueue: in two regions, two queues of one name",
        post(
            "Action=GetQueueAttributes&AttributeName.1=ApproximateNumberOfMessages", target="/queue/eu-north-1" + PATH
        ),
        xml("<Value>0</Value>"),
        LS + "test_endpoint_strategy_with_multi_region",
        setup=[
            queue(),
            send(),
            post("Action=CreateQueue&QueueName=${name:q}", headers=signed("eu-north-1")),
        ],
    ),
    row(
        "CreateQueue: an access key of twelve digits is an account",
        post("Action=CreateQueue&QueueName=${name:q}", headers=signed("us-east-1", "886468871268")),
        xml("http://localhost:9324/886468871268/${name:q}</QueueUrl>"),
        "LocalStack and moto: tests play several accounts",
    ),
    row(
        "SendMessage: to the queue of another account, by its URL",
        post("Action=SendMessage&MessageBody=foo&QueueUrl=${url:q}", headers=signed("us-east-1", "886468871268")),
        xml("<MessageId>"),
        "LocalStack, test_cross_account_access",
        setup=[queue()],
        then=[(receive(), bodies("foo"))],
    ),
)

# --------------------------------------------------------------------------------------------------- the Query protocol

REQUESTS: Final = (
    row(
        "GetQueueAttributes: GET of the queue's URL",
        get(PATH + "?Action=GetQueueAttributes&AttributeName.1=All"),
        xml(
            "<GetQueueAttributesResponse",
            "<Attribute><Name>QueueArn</Name><Value>arn:aws:sqs:",
            "<Attribute><Name>VisibilityTimeout</Name><Value>30",
        ),
        LS + "test_get_queue_attributes_all",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: GET with one name",
        get(PATH + "?Action=GetQueueAttributes&AttributeName.1=QueueArn&Version=2012-11-05"),
        {
            "status": 200,
            "text": Matcher(
                "the ARN only", lambda text: "<Name>QueueArn</Name>" in text and "VisibilityTimeout" not in text
            ),
        },
        LS + "test_get_queue_attributes_with_query_args",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: GET with a name that is none",
        get(PATH + "?Action=GetQueueAttributes&AttributeName.1=Foobar"),
        xml_error("InvalidAttributeName", "Unknown Attribute Foobar."),
        LS + "test_get_queue_attributes_with_invalid_arg_returns_error",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: the parameter QueueUrl goes before the path",
        get(PATH + "?Action=GetQueueAttributes&QueueUrl=${url:r}&AttributeName.1=QueueArn"),
        xml("${arn:r}"),
        LS + "test_overwrite_queue_url_in_params",
        setup=[queue(), queue("r")],
    ),
    row(
        "GetQueueAttributes: GET of a queue that was deleted",
        get(PATH + "?Action=GetQueueAttributes&AttributeName.1=QueueArn"),
        xml_error(
            "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist for this wsdl version."
        ),
        LS + "test_get_on_deleted_queue_fails",
        setup=[queue(), call("DeleteQueue", QueueUrl="${url:q}")],
    ),
    row(
        "DeleteQueue: GET",
        get(PATH + "?Action=DeleteQueue"),
        xml("<DeleteQueueResponse ", "<RequestId>"),
        LS + "test_get_delete_queue",
        setup=[queue()],
    ),
    row(
        "SendMessage and ReceiveMessage: GET",
        get(PATH + "?Action=SendMessage&MessageBody=foobar"),
        xml("<SendMessageResponse", "<MD5OfMessageBody>3858f62230ac3c915f300c664312c63f"),
        LS + "test_get_send_and_receive_messages",
        setup=[queue()],
        then=[
            (get(PATH + "?Action=ReceiveMessage"), xml("<Body>foobar</Body>", "<MD5OfBody>")),
            (get(PATH + "?Action=ReceiveMessage"), xml("<ReceiveMessageResult/>")),
        ],
    ),
    row(
        "SendMessage: GET without a body",
        get(PATH + "?Action=SendMessage"),
        xml_error("MissingParameter", "The request must contain the parameter MessageBody."),
        LS + "test_valid_action_with_missing_parameter_raises_exception",
        setup=[queue()],
    ),
    row(
        "GetQueueUrl: GET of another queue's URL",
        get(PATH + "?Action=GetQueueUrl&QueueName=${name:r}"),
        xml("<QueueUrl>${url:r}</QueueUrl>"),
        LS + "test_get_queue_url_work_for_different_queue",
        setup=[queue(), queue("r")],
    ),
    row(
        "FooBar: an action that is none",
        get(PATH + "?Action=FooBar&Version=2012-11-05"),
        xml_error("InvalidAction", "The action FooBar is not valid for this endpoint."),
        LS + "test_invalid_action_raises_exception",
        setup=[queue()],
    ),
    row(
        "listqueues: an action in small letters",
        get("/?Action=listqueues"),
        xml_error("InvalidAction", "The action listqueues is not valid for this endpoint."),
        OURS,
    ),
    row(
        "CreateQueue: to a queue's URL",
        get(PATH + "?Action=CreateQueue&QueueName=other"),
        xml_error("InvalidAction", "The action CreateQueue is not valid for this endpoint."),
        LS + "test_get_create_queue_fails",
        setup=[queue()],
    ),
    row(
        "ListQueues: to a queue's URL",
        get(PATH + "?Action=ListQueues"),
        xml_error("InvalidAction", "The action ListQueues is not valid for this endpoint."),
        LS + "test_get_list_queues_fails",
        setup=[queue()],
    ),
    row(
        "ListQueues: GET of the root",
        get("/?Action=ListQueues&Version=2012-11-05"),
        xml("<ListQueuesResponse"),
        LS + "test_get_list_queues_with_query_auth",
    ),
    row(
        "GET of a queue's URL without an action",
        get(PATH),
        {"status": 404, "text": has("<UnknownOperationException")},
        LS + "test_get_without_query_returns_unknown_operation",
        setup=[queue()],
    ),
    row(
        "GET of a queue's URL without an action, JSON accepted",
        get(PATH, headers={"accept": "application/json"}),
        {"status": 404, "text": has("<UnknownOperationException")},
        LS + "test_get_without_query_json_format_returns_returns_xml",
        setup=[queue()],
    ),
    row(
        "ListQueues: to a queue's URL, JSON accepted",
        get(PATH + "?Action=ListQueues", headers={"accept": "application/json"}),
        {
            "status": 400,
            "text": has('"Code":"InvalidAction"', "The action ListQueues is not valid for this endpoint."),
        },
        LS + "test_get_list_queues_fails_json_format",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: GET, JSON accepted",
        get(PATH + "?Action=GetQueueAttributes&AttributeName.1=QueueArn", headers={"accept": "application/json"}),
        {
            "status": 200,
            "text": has('{"GetQueueAttributesResponse":{"GetQueueAttributesResult":{"Attributes":[', "${arn:q}"),
        },
        LS + "test_get_queue_attributes_json_format",
        setup=[queue()],
    ),
    row(
        "SendMessage: a form with plus signs and escapes",
        post("Action=SendMessage&MessageBody=a+b%2Bc%0D%0A%C3%A4", target=PATH),
        xml("<MessageId>"),
        "HTML, application/x-www-form-urlencoded",
        setup=[queue()],
        then=[(receive(), bodies("a b+c\r\nä"))],
    ),
    row(
        "SendMessage: parameters in the query string of a POST",
        Http("POST", PATH + "?Action=SendMessage&MessageBody=x"),
        xml("<MessageId>"),
        GUIDE + "Making Query API requests",
        setup=[queue()],
    ),
    row(
        "SendMessage: an unknown parameter",
        post("Action=SendMessage&MessageBody=x&Foo=1&Version=2009-02-01", target=PATH),
        xml("<MessageId>"),
        OURS,
        setup=[queue()],
    ),
    row(
        "SendMessage: DelaySeconds that is no number",
        post("Action=SendMessage&MessageBody=x&DelaySeconds=five", target=PATH),
        xml("<Code>MalformedInput</Code>", status=400),
        OURS,
        setup=[queue()],
    ),
    row(
        "SendMessage: DelaySeconds that is empty",
        post("Action=SendMessage&MessageBody=x&DelaySeconds=", target=PATH),
        xml("<Code>MalformedInput</Code>", status=400),
        OURS,
        setup=[queue()],
    ),
    row(
        "SendMessage: attributes that are not counted from 1",
        post(
            "Action=SendMessage&MessageBody=x&MessageAttribute.7.Name=b&MessageAttribute.7.Value.DataType=String"
            "&MessageAttribute.7.Value.StringValue=2&MessageAttribute.3.Name=a&MessageAttribute.3.Value.DataType=String"
            "&MessageAttribute.3.Value.StringValue=1",
            target=PATH,
        ),
        xml("<MD5OfMessageAttributes>"),
        OURS,
        setup=[queue()],
        then=[
            (
                receive(MessageAttributeNames=["All"]),
                {"Messages": [{"MessageAttributes": {"a": {"StringValue": "1"}, "b": {"StringValue": "2"}}}]},
            )
        ],
    ),
    row(
        "CreateQueue: an attribute without a value",
        post("Action=CreateQueue&QueueName=${name:q}&Attribute.1.Name=DelaySeconds"),
        xml_error("InvalidAttributeValue", "Invalid value for the parameter DelaySeconds."),
        OURS,
    ),
    row(
        "PUT of a queue's URL",
        Http("PUT", PATH + "?Action=SendMessage&MessageBody=x"),
        {"status": 405},
        OURS,
        setup=[queue()],
    ),
)

# ---------------------------------------------------------------------------------------------------- the JSON protocol

NOT_FOUND: Final = "com.amazonaws.sqs#QueueDoesNotExist"
SERIALIZATION: Final = "com.amazon.coral.service#SerializationException"

JSON_REQUESTS: Final = (
    row(
        "GetQueueUrl: the error in JSON",
        json_call("GetQueueUrl", '{"QueueName":"nowhere-at-all"}'),
        json_error(
            NOT_FOUND, "AWS.SimpleQueueService.NonExistentQueue", '"message":"The specified queue does not exist."'
        ),
        LS + "test_non_existent_queue; " + ISSUE + "http4k/http4k#1336 of the form",
    ),
    row(
        "SendMessage: the error in JSON of what no operation declares",
        json_call("SendMessage", '{"QueueUrl":"${url:q.fifo}","MessageBody":"m","MessageGroupId":"g"}'),
        json_error(
            "com.amazon.coral.service#InvalidParameterValueException",
            "InvalidParameterValue",
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
        ),
        ISSUE + "http4k/http4k#1336",
        setup=[queue("q.fifo")],
    ),
    row(
        "ReceiveMessage: JSON to the queue's URL",
        json_call("ReceiveMessage", '{"QueueUrl":"${url:q}"}', target=PATH),
        {"status": 200, "text": has("{}")},
        LS + "TestSqsQueryApi::test_send_message_via_queue_url_with_json_protocol",
        setup=[queue()],
    ),
    row(
        "ReceiveMessage: JSON to the queue's URL, which is not named again",
        json_call("ReceiveMessage", "{}", target=PATH),
        {"status": 200},
        OURS,
        setup=[queue()],
    ),
    row(
        "SendMessage: a member that is not known",
        json_call("SendMessage", '{"QueueUrl":"${url:q}","MessageBody":"m","Foo":{"a":[1]}}'),
        {"status": 200, "text": has("MessageId")},
        "AWS JSON protocol: unknown members are ignored",
        setup=[queue()],
    ),
    row(
        "SendMessage: no JSON",
        json_call("SendMessage", "{"),
        json_error(SERIALIZATION, "MalformedInput", has(SERIALIZATION)),
        "AWS JSON protocol",
    ),
    row(
        "SendMessage: a list",
        json_call("SendMessage", "[]"),
        json_error(SERIALIZATION, "MalformedInput", has(SERIALIZATION)),
        "AWS JSON protocol",
    ),
    row(
        "ListQueues: nothing in the body",
        json_call("ListQueues", ""),
        {"status": 200},
        OURS,
    ),
    row(
        "FooBar: a target that is none",
        json_call("FooBar", "{}"),
        {"status": 400, "text": has('"__type":"com.amazon.coral.service#UnknownOperationException"')},
        "AWS JSON protocol",
    ),
    row(
        "ListQueues: another content type with a target",
        Http("POST", "/", {"content-type": "text/plain", "x-amz-target": "AmazonSQS.ListQueues"}, "{}"),
        {"status": 200, "type": "application/x-amz-json-1.0"},
        OURS,
    ),
    row(
        "ListQueues: a content type with a character set",
        Http(
            "POST",
            "/",
            {"content-type": "application/x-amz-json-1.0; charset=utf-8", "x-amz-target": "AmazonSQS.ListQueues"},
            "{}",
        ),
        {"status": 200, "type": "application/x-amz-json-1.0"},
        OURS,
    ),
    row(
        "SendMessage: the trace header of the HTTP request",
        json_call(
            "SendMessage",
            '{"QueueUrl":"${url:q}","MessageBody":"m"}',
            headers={"x-amzn-trace-id": "Root=1-67891233-abc"},
        ),
        {"status": 200},
        API + "SendMessage, AWSTraceHeader; AWS X-Ray: SDKs send the header",
        setup=[queue()],
        then=[
            (
                receive(MessageSystemAttributeNames=["AWSTraceHeader"]),
                {"Messages": [{"Attributes": {"AWSTraceHeader": "Root=1-67891233-abc"}}]},
            )
        ],
    ),
    row(
        "GetQueueAttributes: every answer names its request",
        json_call("ListQueues", "{}"),
        {"status": 200, "headers": {"x-amzn-requestid": like(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")}},
        API + "Common parameters",
    ),
)

ROWS: Final[tuple[Row, ...]] = (*URLS, *REQUESTS, *JSON_REQUESTS)
