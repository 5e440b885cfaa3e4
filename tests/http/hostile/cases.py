"""The corpus: byte streams of attackers and of broken or unusual clients, with what has to become of each.

Each hostile stream is followed by a second request, `/smuggled`, that only a reader who is wrong about the first would
see. The limits are small, so that the streams that exceed them are, too.
"""

from __future__ import annotations

from headrace.http.limits import Limits

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOST = b"Host: localhost\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMITS = Limits(header_bytes=4096, headers_max=20, target_bytes=1024, body_bytes=1000, trailer_bytes=256)


def with_headers(*lines: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


HOSTILE: dict[str, tuple[bytes, int]] = {
    # Two lengths: which one is believed decides where the next request starts
    "content_length_and_chunked": (
        with_headers(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "chunked_and_content_length": (
        with_headers(b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"0\r\n\r\n",
        400,
    ),
    "two_content_lengths": (with_headers(b"Content-Length: 0", b"Content-Length: 44"), 400),
    "two_equal_content_lengths": (with_headers(b"Content-Length: 0", b"content-length: 0"), 400),
    "content_length_list": (with_headers(b"Content-Length: 0, 0"), 400),
    "content_length_plus": (with_headers(b"Content-Length: +0"), 400),
    "content_length_minus": (with_headers(b"Content-Length: -1"), 400),
    "content_length_underscore": (with_headers(b"Content-Length: 4_4"), 400),
    "content_length_hex": (with_headers(b"Content-Length: 0x2c"), 400),
    "content_length_arabic_digit": (with_headers("Content-Length: ٤".encode()), 400),
    "content_length_empty": (with_headers(b"Content-Length:"), 400),
    "content_length_inner_space": (with_headers(b"Content-Length: 4 4"), 400),
    "content_length_overflow": (with_headers(b"Content-Length: 18446744073709551616"), 400),
    "content_length_20_zeros": (with_headers(b"Content-Length: 00000000000000000000"), 400),
    # Transfer codings
    "te_twice": (with_headers(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "te_list": (with_headers(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", 400),
    "te_identity_chunked": (with_headers(b"Transfer-Encoding: identity, chunked") + b"0\r\n\r\n", 400),
    "te_leading_comma": (with_headers(b"Transfer-Encoding: ,chunked") + b"0\r\n\r\n", 400),
    "te_gzip": (with_headers(b"Transfer-Encoding: gzip"), 400),
    "te_xchunked": (with_headers(b"Transfer-Encoding: xchunked"), 400),
    "te_kelvin_sign": (with_headers("Transfer-Encoding: chun\u212aed".encode()), 400),
    "te_quoted": (with_headers(b'Transfer-Encoding: "chunked"'), 400),
    "te_vertical_tab": (with_headers(b"Transfer-Encoding: \x0bchunked"), 400),
    "te_empty": (with_headers(b"Transfer-Encoding:"), 400),
    "te_in_http10": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    # Chunks
    "chunk_size_underscore": (CHUNKED + b"0_2c\r\n", 400),
    "chunk_size_plus": (CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_minus": (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_0x": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_leading_space": (CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_trailing_space": (CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_empty": (CHUNKED + b"\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_junk": (CHUNKED + b"5g\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_17_digits": (CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_overflow": (CHUNKED + b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", 413),
    "chunk_size_bare_lf": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_bare_cr": (CHUNKED + b"5\rhello\r\n0\r\n\r\n", 400),
    "chunk_data_longer": (CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", 400),
    "chunk_data_end_lf": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400),
    "chunk_data_end_missing": (CHUNKED + b"5\r\nhello0\r\n\r\n", 400),
    "chunk_extension_bare_lf": (CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_extension_bare_cr": (CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_extension_nul": (CHUNKED + b"5;a\0b\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_extension_too_long": (CHUNKED + b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n", 400),
    "chunks_longer_than_limit": (CHUNKED + (b"1f4\r\n" + b"x" * 500 + b"\r\n") * 3 + b"0\r\n\r\n", 413),
    # Trailers
    "trailer_content_length": (CHUNKED + b"0\r\nContent-Length: 44\r\n\r\n", 400),
    "trailer_host": (CHUNKED + b"0\r\nHost: evil\r\n\r\n", 400),
    "trailer_transfer_encoding": (CHUNKED + b"0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "trailer_no_colon": (CHUNKED + b"0\r\njunk\r\n\r\n", 400),
    "trailer_bare_lf": (CHUNKED + b"0\r\nA: b\n\r\n", 400),
    "trailer_fold": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400),
    "trailers_too_long": (CHUNKED + b"0\r\n" + b"A: bbbbbbbb\r\n" * 50 + b"\r\n", 431),
    "trailer_line_too_long": (CHUNKED + b"0\r\nA: " + b"b" * 400 + b"\r\n\r\n", 431),
    # Header lines
    "obs_fold": (with_headers(b"A: b", b" Content-Length: 44"), 400),
    "obs_fold_tab": (with_headers(b"A: b", b"\tContent-Length: 44"), 400),
    "fold_on_first_line": (b"GET / HTTP/1.1\r\n A: b\r\n" + HOST + b"\r\n", 400),
    "space_before_colon": (with_headers(b"Content-Length : 44"), 400),
    "tab_before_colon": (with_headers(b"Content-Length\t: 44"), 400),
    "no_colon": (with_headers(b"Content-Length"), 400),
    "empty_name": (with_headers(b": 44"), 400),
    "name_not_token": (with_headers(b"Content(Length: 44"), 400),
    "name_high_byte": (with_headers(b"Content-Length\x85: 44"), 400),
    "value_nul": (with_headers(b"A: b\0c"), 400),
    "value_control": (with_headers(b"A: b\x01c"), 400),
    "value_del": (with_headers(b"A: b\x7fc"), 400),
    "value_bare_cr": (with_headers(b"A: b\rContent-Length: 44"), 400),
    "value_bare_lf": (with_headers(b"A: b\nContent-Length: 44"), 400),
    "line_ends_lf": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    "head_ends_lf": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\n", 400),
    "head_ends_cr": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\r\n\r\n", 400),
    "too_many_headers": (with_headers(*[b"A%d: b" % i for i in range(20)]), 431),
    "too_many_repeats": (with_headers(*[b"A: b"] * 20), 431),
    "headers_too_long": (with_headers(b"A: " + b"b" * 4096), 431),
    # Host
    "no_host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two_hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two_equal_hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
    "host_with_path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host_with_user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "host_with_space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "host_bad_port": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    "two_content_types": (with_headers(b"Content-Type: a/b", b"Content-Type: c/d"), 400),
    "two_authorizations": (with_headers(b"Authorization: a", b"Authorization: b"), 400),
    # Request line
    "http09": (b"GET /\r\n\r\n", 400),
    "http20_preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http12": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    "http132": (b"GET / HTTP/1.32\r\n" + HOST + b"\r\n", 400),
    "lower_case_version": (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400),
    "no_version_number": (b"GET / HTTP\r\n" + HOST + b"\r\n", 400),
    "rtsp": (b"SETUP / RTSP/1.0\r\n" + HOST + b"\r\n", 400),
    "two_spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "tab": (b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "leading_space": (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "trailing_space": (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "method_not_token": (b"GE(T / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two_empty_lines_before": (b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "lf_before": (b"\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "tls_hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "target_too_long": (b"GET /" + b"a" * 1024 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "line_without_end": (b"GET /" + b"a" * 5000, 414),
    "target_fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_high_byte": (b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_relative": (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_asterisk": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_absolute_ftp": (b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_absolute_user": (b"GET http://a@b/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "connect": (b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "connect_path": (b"CONNECT /path HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "unknown_expectation": (with_headers(b"Expect: 200-ok"), 417),
    # More ways to say chunked to one reader and not to the other (TE.CL, CL.TE, TE.TE)
    "te_space_before_colon": (with_headers(b"Transfer-Encoding : chunked") + b"0\r\n\r\n", 400),
    "te_folded": (with_headers(b"Transfer-Encoding:", b" chunked") + b"0\r\n\r\n", 400),
    "te_parameter": (with_headers(b"Transfer-Encoding: chunked;q=1") + b"0\r\n\r\n", 400),
    "te_chunked_identity": (with_headers(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n", 400),
    "te_cow_then_chunked": (
        with_headers(b"Transfer-Encoding: cow", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "te_form_feed": (with_headers(b"Transfer-Encoding: chunked\x0c") + b"0\r\n\r\n", 400),
    "te_nul": (with_headers(b"Transfer-Encoding: chunked\0") + b"0\r\n\r\n", 400),
    "te_behind_bare_lf": (with_headers(b"A: b\nTransfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "te_behind_bare_cr": (with_headers(b"A: b\rTransfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "te_name_with_underscore_and_te": (
        with_headers(b"Transfer_Encoding: chunked", b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        400,
    ),
    "te_and_length_in_http10": (
        b"POST / HTTP/1.0\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "te_on_get": (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "content_length_comma": (with_headers(b"Content-Length: 0,44"), 400),
    "content_length_decimal": (with_headers(b"Content-Length: 0.0"), 400),
    "content_length_exponent": (with_headers(b"Content-Length: 0e0"), 400),
    "content_length_nul": (with_headers(b"Content-Length: 0\0"), 400),
    "content_length_vertical_tab": (with_headers(b"Content-Length: \x0b0"), 400),
    "chunk_size_nul": (CHUNKED + b"0\0\r\n\r\n", 400),
    "chunk_size_tab": (CHUNKED + b"5\t\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_size_full_width_digit": (CHUNKED + "\uff15\r\nhello\r\n0\r\n\r\n".encode(), 400),
    "chunk_size_comma": (CHUNKED + b"5,5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_data_shorter": (CHUNKED + b"6\r\nhello\r\n0\r\n\r\n", 400),
    "chunk_data_end_cr": (CHUNKED + b"5\r\nhello\r0\r\n\r\n", 400),
    "chunk_data_end_lf_cr": (CHUNKED + b"5\r\nhello\n\r0\r\n\r\n", 400),
    "last_chunk_lf": (CHUNKED + b"0\n\r\n", 400),
    "last_chunk_then_lf": (CHUNKED + b"0\r\n\n", 400),
    "last_chunk_minus_zero": (CHUNKED + b"-0\r\n\r\n", 400),
    "trailer_te": (CHUNKED + b"0\r\nTE: trailers\r\n\r\n", 400),
    "trailer_connection": (CHUNKED + b"0\r\nConnection: close\r\n\r\n", 400),
    "trailer_nul": (CHUNKED + b"0\r\nA: b\0\r\n\r\n", 400),
    "trailer_space_before_colon": (CHUNKED + b"0\r\nA : b\r\n\r\n", 400),
    "nul_in_target": (b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "nul_in_method": (b"G\0T / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "nul_in_name": (with_headers(b"A\0: b"), 400),
    "cr_in_line": (b"GET /\r HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "second_line_is_a_request": (b"GET / HTTP/1.1\r\nGET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_absolute_no_host": (b"GET http:/// HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_absolute_bad_host": (b"GET http://a\\b/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_absolute_without_host_header": (b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    "target_authority": (b"GET a:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target_empty": (b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "http09_with_lf": (b"GET /\n", 400),
    "http00": (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    "http3": (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    "two_versions": (b"GET / HTTP/1.1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "upgrade_with_two_lengths": (
        with_headers(b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 0", b"Content-Length: 9"),
        400,
    ),
    "expect_twice": (with_headers(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 2"), 400),
    # Bodies
    "body_too_long": (with_headers(b"Content-Length: 1001"), 413),
    "body_far_too_long": (with_headers(b"Content-Length: 999999999999999999"), 413),
}
"""Streams that are refused with a status, and the connection closed."""

SOUND: dict[str, tuple[bytes, list[tuple[str, str, bytes]]]] = {
    "chunks": (
        CHUNKED + b"5\r\nhello\r\n1;ext=1\r\n!\r\n00\r\nX-Trailer: dropped\r\nContent-Type: a/b\r\n\r\n",
        [("POST", "/", b"hello!")],
    ),
    "chunk_size_cases": (
        CHUNKED + b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
        [("POST", "/", b"0123456789" * 2)],
    ),
    "chunked_upper_case": (with_headers(b"Transfer-Encoding: CHUNKED") + b"0\r\n\r\n", [("POST", "/", b"")]),
    "leading_empty_line": (b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/", b"")]),
    "empty_line_after_body": (with_headers(b"Content-Length: 2") + b"ok\r\n", [("POST", "/", b"ok")]),
    "leading_zeros": (with_headers(b"Content-Length: 0002") + b"ok", [("POST", "/", b"ok")]),
    "value_spaces": (with_headers(b"Content-Length: \t 2 \t") + b"ok", [("POST", "/", b"ok")]),
    "value_high_bytes": (with_headers(b"A: \xc3\xa4\x80\xff"), [("POST", "/", b"")]),
    "empty_value": (with_headers(b"A:"), [("POST", "/", b"")]),
    "unknown_method": (b"BREW /pot HTTP/1.1\r\n" + HOST + b"\r\n", [("BREW", "/pot", b"")]),
    "absolute": (b"GET http://example.com/a?b HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/a?b", b"")]),
    "absolute_bare": (b"GET HTTPS://example.com HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/", b"")]),
    "absolute_query_only": (b"GET http://example.com?b HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/?b", b"")]),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [("OPTIONS", "*", b"")]),
    "ipv6_host": (b"GET / HTTP/1.1\r\nHost: [::1]:9324\r\n\r\n", [("GET", "/", b"")]),
    "empty_host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [("GET", "/", b"")]),
    "upgrade_ignored": (with_headers(b"Upgrade: websocket", b"Connection: Upgrade"), [("POST", "/", b"")]),
    "get_with_body": (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nok", [("GET", "/", b"ok")]),
    "body_at_limit": (with_headers(b"Content-Length: 1000") + b"x" * 1000, [("POST", "/", b"x" * 1000)]),
    "te_after_tab": (with_headers(b"Transfer-Encoding:\tchunked") + b"0\r\n\r\n", [("POST", "/", b"")]),
    "absolute_beats_host": (b"GET http://a/b HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/b", b"")]),
    "upgrade_h2c_ignored": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\n\r\n",
        [("GET", "/", b"")],
    ),
    "upgrade_declined": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        [("GET", "/", b"")],
    ),
    "upgrade_unasked": (b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\n\r\n", [("GET", "/", b"")]),
    "upgrade_with_body": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
        [("GET", "/", b"ok")],
    ),
    "expectation_not_waited_for": (
        with_headers(b"Expect: 100-continue", b"Content-Length: 2") + b"ok",
        [("POST", "/", b"ok")],
    ),
    "connection_unknown_option": (with_headers(b"Connection: x-foo"), [("POST", "/", b"")]),
    "http10_keep_alive": (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", [("GET", "/", b"")]),
    "http10_body": (
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        [("POST", "/", b"ok")],
    ),
    "body_that_looks_like_a_request": (
        with_headers(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,
        [("POST", "/", SMUGGLED)],
    ),
    "chunk_that_looks_like_the_end": (
        CHUNKED + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        [("POST", "/", b"0\r\n\r\n")],
    ),
    "pipelined": (
        b"GET /a HTTP/1.1\r\n"
        + HOST
        + b"\r\n"
        + CHUNKED
        + b"1\r\nx\r\n0\r\n\r\n"
        + with_headers(b"Content-Length: 1")
        + b"y",
        [("GET", "/a", b""), ("POST", "/", b"x"), ("POST", "/", b"y")],
    ),
}
"""Unusual but valid streams: what the application sees of each. The connection goes on."""


LAST: dict[str, bytes] = {
    "close": b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "close_in_a_list": b"GET / HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, Close\r\n\r\n",
    "close_on_a_line_of_its_own": b"GET / HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nConnection: close\r\n\r\n",
    "http10": b"GET / HTTP/1.0\r\n\r\n",
    "http10_with_host": b"GET / HTTP/1.0\r\n" + HOST + b"\r\n",
    "http10_upgrade": b"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "http10_close_and_keep_alive": b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
    "http10_expectation": b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
}
"""Valid requests after which nothing more is read: what follows them must not be answered."""

CUT = {
    "head": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "body": with_headers(b"Content-Length: 10") + b"012345678",
    "chunk": CHUNKED + b"5\r\nhell",
    "chunk_end": CHUNKED + b"5\r\nhello",
    "last_chunk": CHUNKED + b"5\r\nhello\r\n",
    "trailers": CHUNKED + b"5\r\nhello\r\n0\r\n",
    "last_byte": CHUNKED + b"5\r\nhello\r\n0\r\n\r",
}
"""Requests that end too early: no application sees them as whole."""
