import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from support.alerts import alerts, sample_alert
from varde import segment
from varde.alert import format_alert, parse_alert
from varde.capcodes import MsgType, Scope, Status
from varde.encoding import format_json, parse_json
from varde.errors import Malformed, Reason
from varde.segment import NameValue
from varde_gateway import cap
from varde_gateway.cap import (
    MAX_CAP_BYTES,
    alert_from_api,
    format_cap_xml,
    parse_cap_xml,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "cap"
VALID = sorted(VECTORS.glob("*.xml"))
BROKEN = sorted((VECTORS / "broken").glob("*.xml"))
SCHEMA = etree.XMLSchema(etree.parse(Path(cap.__file__).with_name("cap12.xsd")))
SAMPLE_XML = format_cap_xml(parse_alert(sample_alert()))
ALERT = b'<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">'
FILLED = {
    "identifier": "EE-1",
    "sender": "node@ee.example",
    "sent": "2026-03-01T08:00:00-00:00",
    "restriction": "TLP:GREEN",
}


def refusal(raw):
    with pytest.raises(Malformed) as caught:
        parse_cap_xml(raw)
    assert caught.value.reason is Reason.BAD_BODY
    return caught.value.detail


def from_api(**members):
    return alert_from_api({"status": "Test"} | members, **FILLED)


def info_from_api(**members):
    info = {
        "category": "Met",
        "event": "Wind",
        "urgency": "Past",
        "severity": "Minor",
        "certainty": "Likely",
    }
    return from_api(info=info | members).info[0]


def assert_valid(xml):
    SCHEMA.assertValid(etree.fromstring(xml))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_published_document_survives_xml_json_and_xml_again(path):
    alert = parse_cap_xml(path.read_bytes())
    carried = parse_alert(parse_json(format_json(format_alert(alert)), limit=MAX_CAP_BYTES))
    written = format_cap_xml(carried)
    assert_valid(written)
    assert carried == alert
    assert parse_cap_xml(written) == alert


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_document_is_refused_with_the_answer_that_it_names(path):
    raw = path.read_bytes()
    answer = re.search(r"answer: (.*?) -->", raw.decode())
    assert answer is not None
    assert answer.group(1) in refusal(raw)


def test_there_are_valid_and_broken_documents():
    assert len(VALID) >= 12
    assert len(BROKEN) >= 20


@given(alerts())
def test_every_alert_is_the_same_after_xml_and_its_xml_is_valid(alert):
    xml = format_cap_xml(alert)
    assert_valid(xml)
    assert parse_cap_xml(xml) == alert


@given(st.from_regex(segment._ABSOLUTE_URI, fullmatch=True) | st.text(max_size=12))
def test_every_uri_that_an_alert_accepts_is_one_for_the_schema(uri):
    value = sample_alert()
    value["info"][0]["web"] = uri
    try:
        alert = parse_alert(value)
    except Malformed:
        return
    assert_valid(format_cap_xml(alert))


@given(st.binary(max_size=64))
def test_any_bytes_are_refused(raw):
    assert refusal(raw)


@given(st.data())
def test_a_document_with_bytes_replaced_is_an_alert_or_is_refused(data):
    start = data.draw(st.integers(0, len(SAMPLE_XML)))
    end = data.draw(st.integers(start, min(start + 16, len(SAMPLE_XML))))
    raw = SAMPLE_XML[:start] + data.draw(st.binary(max_size=8)) + SAMPLE_XML[end:]
    try:
        alert = parse_cap_xml(raw)
    except Malformed:
        return
    assert parse_cap_xml(format_cap_xml(alert)) == alert


def test_text_is_trimmed_and_what_is_inside_it_is_kept():
    alert = parse_cap_xml((VECTORS / "snow_warncell_many_points.xml").read_bytes())
    description = alert.info[0].description
    assert description is not None
    assert description.startswith("Es tritt oberhalb 1000 m")
    assert "cm auf.\r\nIn Staulagen" in description
    assert description.endswith("60 cm erreicht.")
    assert len(alert.info[0].area[0].polygon[0].split(" ")) == 320


def test_empty_optional_elements_are_absent_and_empty_values_stay():
    alert = parse_cap_xml((VECTORS / "thunderstorm_bilingual_signed.xml").read_bytes())
    assert (alert.restriction, alert.addresses, alert.note) == (None, None, None)
    assert alert.info[0].web is None
    assert len(alert.info[0].area) == 36
    cyclone = parse_cap_xml((VECTORS / "cyclone_cdata.xml").read_bytes())
    assert NameValue("glide", "") in cyclone.info[0].parameter
    assert all(pair.value_name for pair in cyclone.info[0].parameter)
    assert "<b>2.3 million</b>" in str(cyclone.info[0].description)


def test_an_empty_time_is_absent_although_the_schema_has_no_empty_time():
    raw = re.sub(rb"<expires>[^<]*</expires>", b"<expires> </expires>", SAMPLE_XML)
    assert {info.expires for info in parse_cap_xml(raw).info} == {None}


def test_lists_in_text_have_single_spaces_whatever_the_document_had():
    alert = parse_cap_xml((VECTORS / "ack_private_without_info.xml").read_bytes())
    assert (
        alert.addresses == '"Situation Centre, Tallinn" pkc@vrm.example "Rajavartiolaitos Helsinki"'
    )
    assert alert.references is not None
    assert alert.references.count(" ") == 1


def test_enclosed_content_has_no_line_breaks():
    alert = parse_cap_xml((VECTORS / "civil_emergency_deref_uri.xml").read_bytes())
    resource = alert.info[0].resource[0]
    assert resource.size == 3001
    assert resource.deref_uri is not None
    assert len(resource.deref_uri) == 4004


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1257", "utf-8-sig"])
def test_a_document_in_any_declared_encoding_is_read(encoding):
    declared = encoding.removesuffix("-sig")
    text = SAMPLE_XML.decode().replace("UTF-8", declared).replace("õ", "ä")
    alert = parse_cap_xml(text.encode(encoding))
    assert alert.incidents == '"Narva jägi 2026-03"'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"alert",
        b"{}",
        ALERT,
        ALERT + b"</alert></alert>",
        b"\n" + SAMPLE_XML,
        SAMPLE_XML.replace(b"Narva", b"Nar\0va", 1),
        SAMPLE_XML.replace("õ".encode(), b"\xf5", 1),
        SAMPLE_XML.replace(b"UTF-8", b"utf-99", 1),
        SAMPLE_XML.replace(b"UTF-8", b"UTF-16", 1),
        SAMPLE_XML.replace(b"Narva", b"&#0;", 1),
        SAMPLE_XML.replace(b"Narva", b"&#xFFFE;", 1),
        SAMPLE_XML.replace(b"Narva", b"&undefined;", 1),
        b"<a>" * 20_000,
        ALERT + b"<info>" * 1_000 + b"</info>" * 1_000 + b"</alert>",
    ],
)
def test_what_is_not_well_formed_is_refused(raw):
    assert refusal(raw).startswith("not well-formed XML: ")


def test_nested_infos_are_refused_as_unknown_members():
    raw = ALERT + b"<info>" * 100 + b"</info>" * 100 + b"</alert>"
    assert "is required" in refusal(raw)
    nested = SAMPLE_XML.replace(b"<audience>", b"").replace(
        b"<event>Piirirahutus</event>", b"<event>x</event><info/>"
    )
    assert "info[0]: has members that CAP does not know: info" in refusal(nested)


def test_a_body_of_ten_megabytes_is_refused_before_it_is_read():
    with pytest.raises(Malformed) as caught:
        parse_cap_xml(ALERT + b" " * 10_000_000)
    assert caught.value.reason is Reason.OVERSIZE
    assert "at most 262144 are allowed" in caught.value.detail


def test_a_document_of_exactly_the_limit_is_read():
    padded = SAMPLE_XML + b"\n" * (MAX_CAP_BYTES - len(SAMPLE_XML))
    assert parse_cap_xml(padded).identifier == "EE-2026-03-01-0007"
    with pytest.raises(Malformed):
        parse_cap_xml(padded + b"\n")


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE alert>",
        f'<!DOCTYPE alert [<!ENTITY l0 "ha">{LAUGHS}]>',
        f'<!DOCTYPE alert [<!ENTITY a "{"a" * 50_000}">]>',
        '<!DOCTYPE alert [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE alert SYSTEM "http://169.254.169.254/latest">',
        '<!DOCTYPE alert [<!ENTITY % p SYSTEM "http://127.0.0.1/x.dtd"> %p;]>',
        '<!DOCTYPE alert [<!ATTLIST alert status CDATA "Actual">]>',
        "<!-- comment --><?pi x?>\n<!DOCTYPE alert>",
        "<!-- a <!-- -->" * 3_000 + "<!DOCTYPE alert>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-8-sig", "cp037"])
def test_a_document_type_is_refused_in_every_encoding(doctype, encoding):
    declared = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?>{doctype}<alert>&l9;&x;</alert>'
    detail = refusal(text.encode(encoding))
    assert "DOCTYPE" in detail or detail.startswith("not well-formed XML: ")
    if encoding != "cp037":
        assert detail.startswith("the document has a DOCTYPE, which is refused")


def test_a_document_type_that_does_not_read_as_ascii_is_refused_too():
    raw = b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE alert+AD4-<alert/>'
    assert refusal(raw).startswith("the document has a DOCTYPE, which is refused")


def test_the_word_doctype_inside_a_text_is_only_a_text():
    raw = SAMPLE_XML.replace(
        b"<event>Piirirahutus", b"<event><![CDATA[<!DOCTYPE html> x]]>Piirirahutus", 1
    )
    assert parse_cap_xml(raw).info[0].event == "<!DOCTYPE html> xPiirirahutus"


def test_comments_and_instructions_inside_a_text_are_dropped():
    raw = SAMPLE_XML.replace(b"Piirirahutus", b"Piiri<!-- c --><?pi x?>rahutus", 1)
    assert parse_cap_xml(raw).info[0].event == "Piirirahutus"


def test_a_schema_location_in_the_document_is_never_followed(tmp_path):
    hostile = tmp_path / "hostile.xsd"
    hostile.write_text("no schema at all")
    hint = f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="urn:x {hostile.as_uri()}" '
    raw = SAMPLE_XML.replace(b"<alert ", b"<alert " + hint.encode(), 1).replace(
        b"<info>", b'<info xsi:type="xs:string">', 1
    )
    raw = raw.replace(b"<event>", b'<event xsi:nil="true">', 1)
    assert parse_cap_xml(raw) == parse_alert(sample_alert())


def test_a_signature_is_dropped_and_other_foreign_elements_are_refused():
    signature = (
        b'<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X/></ds:Signature>'
    )
    signed = SAMPLE_XML.replace(b"</alert>", signature + b"</alert>")
    assert parse_cap_xml(signed) == parse_alert(sample_alert())
    inside = SAMPLE_XML.replace(b"</info>", signature + b"</info>", 1)
    assert "is no element of CAP 1.2" in refusal(inside)


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b'<alert xmlns="urn:oasis:names:tc:emergency:cap:1.1"/>', "this is CAP 1.1"),
        (b'<alert xmlns="http://www.incident.com/cap/1.0"/>', "this is CAP 1.0"),
        (b"<alert/>", "the root element is 'alert' of namespace 'None' where"),
        (b'<feed xmlns="http://www.w3.org/2005/Atom"/>', "the root element is 'feed' of namespace"),
        (ALERT.replace(b"alert", b"info") + b"</info>", "the root element is 'info'"),
        (ALERT + b"</alert>", "identifier: is required"),
    ],
)
def test_another_root_is_refused_with_what_it_is(raw, answer):
    assert answer in refusal(raw)


@pytest.mark.parametrize("size", ["+7", " 7 ", "007"])
def test_a_size_in_any_form_of_an_xml_integer_is_a_number(size):
    path = VECTORS / "civil_emergency_deref_uri.xml"
    raw = path.read_text().replace("<size>3001", f"<size>{size}").encode()
    assert parse_cap_xml(raw).info[0].resource[0].size == 7


@pytest.mark.parametrize("size", ["-7", "7.0", "seven", "9" * 30, "1_000"])
def test_a_size_that_is_no_number_of_bytes_is_refused(size):
    path = VECTORS / "civil_emergency_deref_uri.xml"
    raw = path.read_text().replace("<size>3001", f"<size>{size}").encode()
    assert "info[0].resource[0].size: is not a non-negative integer" in refusal(raw)


def test_threads_read_documents_at_the_same_time_and_each_gets_its_own_answer():
    wrong = SAMPLE_XML.replace(b"<info>", b"<info a='%d'>", 1)
    answers = {}

    def read(number):
        answers[number] = [
            refusal(wrong.replace(b"a='%d'", b"a%d='1'" % number)) for _ in range(50)
        ]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {
        number: all(f"'a{number}'" in answer for answer in answers[number]) for number in range(4)
    } == dict.fromkeys(range(4), True)


def test_written_xml_declares_utf_8_and_the_namespace():
    assert SAMPLE_XML.startswith(b"<?xml version='1.0' encoding='UTF-8'?>\n<alert xmlns=")
    assert "jõgi".encode() in SAMPLE_XML


def test_the_strict_form_passes_the_api_unchanged():
    assert alert_from_api(sample_alert(), **FILLED) == parse_alert(sample_alert())


@given(alerts())
def test_every_alert_in_json_passes_the_api_unchanged(alert):
    assert alert_from_api(format_alert(alert), **FILLED) == alert


def test_what_the_operator_left_out_is_filled_in():
    alert = from_api()
    assert (alert.identifier, alert.sender, alert.sent) == (
        "EE-1",
        "node@ee.example",
        "2026-03-01T08:00:00-00:00",
    )
    assert (alert.msg_type, alert.scope) == (MsgType.ALERT, Scope.RESTRICTED)
    assert alert.restriction == "TLP:GREEN"


def test_what_the_operator_said_wins():
    alert = from_api(
        identifier="X", sender="y", sent="2026-01-01T00:00:00+02:00", restriction="z", source=None
    )
    assert (alert.identifier, alert.sender, alert.sent) == ("X", "y", "2026-01-01T00:00:00+02:00")
    assert alert.restriction == "z"


def test_a_public_alert_gets_no_restriction():
    alert = from_api(scope="Public")
    assert (alert.scope, alert.restriction) == (Scope.PUBLIC, None)


@pytest.mark.parametrize("members", [{}, {"status": None}])
def test_a_status_is_never_guessed(members):
    with pytest.raises(Malformed, match='say "status": "Actual", "Exercise", "System" or "Test"'):
        alert_from_api(members, **FILLED)
    assert from_api(status="Exercise").status is Status.EXERCISE


def test_one_value_will_do_where_a_list_is_expected():
    info = info_from_api(
        responseType="Shelter",
        area={"areaDesc": "A", "circle": "1,1 1", "polygon": "0,0 0,1  1,1 0,0 "},
        resource={"resourceDesc": "r", "mimeType": "image/png", "size": "12", "derefUri": "AA\nAA"},
    )
    assert (info.category, info.response_type) == (("Met",), ("Shelter",))
    assert info.area[0].polygon == ("0,0 0,1 1,1 0,0",)
    assert info.area[0].circle == ("1,1 1",)
    assert (info.resource[0].size, info.resource[0].deref_uri) == (12, "AAAA")
    assert from_api(code="one").code == ("one",)


@pytest.mark.parametrize(
    "given",
    [
        {"a": ["1", "2"], "b": "3"},
        [{"a": ["1", "2"]}, {"b": "3"}],
        [{"a": "1"}, {"valueName": "a", "value": "2"}, {"valueName": " b", "value": 3}],
        {"a": [1, 2], "b": 3},
    ],
)
def test_pairs_may_be_objects_of_name_to_values(given):
    expected = (NameValue("a", "1"), NameValue("a", "2"), NameValue("b", "3"))
    assert info_from_api(parameter=given).parameter == expected
    assert info_from_api(eventCode=given).event_code == expected
    area = {"areaDesc": "x", "geocode": given}
    assert info_from_api(area=area).area[0].geocode == expected


def test_one_pair_may_stand_alone():
    pair = {"valueName": "a", "value": "1.50"}
    assert info_from_api(parameter=pair).parameter == (NameValue("a", "1.50"),)


def test_numbers_may_stand_for_numbers_in_text():
    area = {"areaDesc": "x", "altitude": 120.5, "ceiling": 3000, "polygon": []}
    parsed = info_from_api(area=area).area[0]
    assert (parsed.altitude, parsed.ceiling) == ("120.5", "3000")


@pytest.mark.parametrize(
    "polygon",
    [
        [[0, 0], [0, 1.5], [1e-05, 1], [0, 0]],
        [[[0, 0], [0, 1.5], [1e-05, 1], [0, 0]]],
        [["0", "0"], ["0", "1.5"], ["0.00001", "1"], ["0", "0"]],
        ["0,0 0,1.5 0.00001,1 0,0"],
    ],
)
def test_a_polygon_may_be_a_list_of_pairs(polygon):
    area = info_from_api(area={"areaDesc": "x", "polygon": polygon}).area[0]
    assert area.polygon == ("0,0 0,1.5 0.00001,1 0,0",)


def test_several_polygons_may_be_lists_of_pairs():
    ring = [[0, 0], [0, 1], [1, 1], [0, 0]]
    area = info_from_api(area={"areaDesc": "x", "polygon": [ring, ring]}).area[0]
    assert area.polygon == ("0,0 0,1 1,1 0,0",) * 2


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({"colour": "red"}, "alert: has members that CAP does not know: colour"),
        ({"note": 7}, "note: is not a string"),
        ({"note": ["a"]}, "note: is not a string"),
        ({"note": True}, "note: is not a string"),
        ({"info": "text"}, "info[0]: is not an object"),
        ({"info": {"event": 1.5}}, "info[0].category: is required"),
        ({"code": [["a"]]}, "code[0]: is not a string"),
        ({"status": ""}, "status: '' is not one of"),
        ({"status": ["Actual"]}, "status: '[]' is not one of"),
        ({"scope": ["Restricted"]}, "scope: '[]' is not one of"),
    ],
)
def test_what_cannot_be_normalised_is_refused_by_the_rule(members, answer):
    with pytest.raises(Malformed) as caught:
        from_api(**members)
    assert answer in caught.value.detail


@pytest.mark.parametrize(
    ("area", "answer"),
    [
        ({"polygon": [[0, 0], [0, 1], [1, 1]]}, "has 3 points"),
        ({"polygon": [[0, 0], [0, float("nan")], [1, 1], [0, 0]]}, "'0,nan' is not latitude"),
        ({"polygon": [[[]]]}, "polygon[0]"),
        ({"polygon": [[]]}, "polygon[0]"),
        ({"polygon": [[0, 0], "x", None, {}]}, "polygon[0]"),
        ({"polygon": {"type": "Polygon"}}, "polygon[0]: is not a string"),
        ({"altitude": float("inf")}, "altitude: 'inf' is not a decimal number"),
        ({"altitude": True}, "altitude: 'True' is not a decimal number"),
        ({"geocode": "EE"}, "geocode[0]: is not an object"),
        ({"geocode": {"": "x"}}, "geocode[0].valueName: is empty"),
        ({"geocode": {"a": {"b": "c"}}}, "geocode[0].value: is not a string"),
    ],
)
def test_an_area_that_cannot_be_normalised_is_refused_by_the_rule(area, answer):
    with pytest.raises(Malformed) as caught:
        info_from_api(area={"areaDesc": "x"} | area)
    assert answer in caught.value.detail


@pytest.mark.parametrize("value", [None, [], "alert", 1, 1.5, True])
def test_what_is_not_an_object_is_no_alert(value):
    with pytest.raises(Malformed, match="alert: is not an object"):
        alert_from_api(value, **FILLED)


LOOSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"status": st.just("Test")},
        optional=dict.fromkeys(("info", "code", "note", "scope", "references", "sent"), LOOSE),
    ),
    st.dictionaries(
        st.sampled_from(["polygon", "circle", "geocode", "altitude", "areaDesc"]), LOOSE
    ),
)
def test_any_json_at_the_api_is_an_alert_or_is_refused(value, area):
    for given_value in (
        value,
        value | {"info": {"category": "Met", "event": "x", "area": area, "parameter": area}},
        value | {"info": {"area": area}},
    ):
        try:
            alert = alert_from_api(given_value, **FILLED)
        except Malformed:
            continue
        assert parse_alert(format_alert(alert)) == alert
