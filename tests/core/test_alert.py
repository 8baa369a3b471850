import json
import re
import time
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.alerts import alerts, sample_alert
from varde.alert import DEFAULT_LANGUAGE, Alert, format_alert, parse_alert
from varde.capcodes import Category, Certainty, MsgType, ResponseType, Scope, Severity, Status
from varde.encoding import MAX_DEPTH, format_json, parse_json
from varde.errors import Malformed, Reason
from varde.segment import NameValue, format_cap_time, parse_cap_time

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def changed(path, value):
    """The sample with the member at ``path`` (such as ``info.0.event``) replaced."""
    alert = deepcopy(sample_alert())
    inner = alert
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return alert


def refusal(value):
    with pytest.raises(Malformed) as caught:
        parse_alert(value)
    assert caught.value.reason is Reason.BAD_BODY
    return caught.value.detail


def test_the_sample_is_read_and_written_without_a_change():
    alert = parse_alert(sample_alert())
    assert alert.status is Status.ACTUAL
    assert alert.scope is Scope.RESTRICTED
    assert alert.info[0].category == (Category.SECURITY, Category.TRANSPORT)
    assert alert.info[1].area[0].geocode[0] == NameValue("NUTS3", "EE00A")
    assert format_alert(alert) == sample_alert()


def test_the_sample_fits_the_depth_limit_inside_a_document():
    payload = {"body": {"alert": sample_alert()}}
    assert MAX_DEPTH == 8
    assert parse_json(format_json(payload), limit=4096) == payload


@given(alerts())
def test_every_alert_is_the_same_after_json(alert):
    raw = format_json(format_alert(alert))
    assert parse_alert(parse_json(raw, limit=1 << 20)) == alert


@given(JSON)
def test_any_json_is_an_alert_or_is_refused(value):
    assert refusal(value)


@given(st.data())
def test_a_sample_with_any_member_replaced_is_an_alert_or_is_refused(data):
    value = deepcopy(sample_alert())
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inner[key], dict | list) or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = data.draw(JSON)
    try:
        alert = parse_alert(value)
    except Malformed:
        return
    assert parse_alert(format_alert(alert)) == alert


def test_an_alert_with_the_least_members_has_nothing_else():
    least = {
        "identifier": "a",
        "sender": "b",
        "sent": "2026-01-01T00:00:00-00:00",
        "status": "Test",
        "msgType": "Alert",
        "scope": "Public",
    }
    alert = parse_alert(least)
    assert alert == Alert(
        "a", "b", "2026-01-01T00:00:00-00:00", Status.TEST, MsgType.ALERT, Scope.PUBLIC
    )
    assert format_alert(alert) == least


def test_formatted_values_are_plain_strings_in_the_order_of_the_schema():
    formatted = format_alert(parse_alert(dict(reversed(sample_alert().items()))))
    assert list(formatted) == list(sample_alert())
    assert type(formatted["status"]) is str
    assert type(formatted["info"][0]["category"][0]) is str


def test_an_info_without_language_is_in_american_english():
    value = changed("msgType", "Alert")
    del value["info"][0]["language"]
    assert parse_alert(value).info[0].language == DEFAULT_LANGUAGE == "en-US"


@pytest.mark.parametrize(
    ("member", "codes", "count"),
    [
        ("status", Status, 5),
        ("info.0.severity", Severity, 5),
        ("info.0.certainty", Certainty, 5),
    ],
)
def test_every_code_of_a_list_is_accepted(member, codes, count):
    assert len(codes) == count
    for code in codes:
        parse_alert(changed(member, code.value))


def test_all_twelve_categories_and_nine_response_types_fit_into_one_info():
    categories = [code.value for code in Category]
    responses = [code.value for code in ResponseType]
    assert (len(categories), len(responses)) == (12, 9)
    value = changed("info.0.category", categories)
    value["info"][0]["responseType"] = responses
    assert parse_alert(value).info[0].category == tuple(Category)


@pytest.mark.parametrize("value", [None, [], "alert", 1, True])
def test_what_is_not_an_object_is_no_alert(value):
    assert refusal(value) == "alert: is not an object (CAP 1.2 section 3.2.1)"


@pytest.mark.parametrize(
    ("path", "value", "answer"),
    [
        ("colour", "red", "alert: has members that CAP does not know: colour"),
        ("info.0.colour", "red", "info[0]: has members that CAP does not know: colour"),
        ("info.0.area.0.colour", "red", "info[0].area[0]: has members that CAP does not know"),
        ("info.1", "text", "info[1]: is not an object"),
        ("info", {}, "info: is not a list of 1 to 64 items"),
        ("info", [], "info: is not a list of 1 to 64 items"),
        ("info", None, "info: is not a list"),
        ("code", "one", "code: is not a list"),
        ("code", [1], "code[0]: is not a string"),
        ("identifier", "", "identifier: must be 1 to 512 characters"),
        ("identifier", "a b", "identifier: must be"),
        ("identifier", "a\u00a0b", "identifier: must be"),
        ("identifier", "a\x00b", "identifier: must be"),
        ("identifier", "a" * 513, "identifier: must be"),
        ("identifier", 7, "identifier: must be"),
        ("sender", "a,b", "sender: must be"),
        ("sender", "a<b", "sender: must be"),
        ("sender", "a&b", "sender: must be"),
        ("sent", "2026-03-01T08:00:00Z", "sent: '2026-03-01T08:00:00Z' is not a time"),
        ("sent", "2026-03-01T08:00:00", "sent: '2026-03-01T08:00:00' is not a time"),
        ("sent", "2026-03-01T08:00:00.5+02:00", "is not a time"),
        ("sent", "2026-03-01T08:00+02:00", "is not a time"),
        ("sent", "2026-03-01 08:00:00+02:00", "is not a time"),
        ("sent", "2026-03-01T08:00:00+0200", "is not a time"),
        ("sent", "2026-03-01T08:00:00+14:01", "is not a time"),
        ("sent", "2026-03-01T08:00:00+02:60", "is not a time"),
        ("sent", "2026-03-01T08:00:00,02:00", "is not a time"),
        ("sent", "٢٠٢٦-03-01T08:00:00+02:00", "is not a time"),
        ("sent", "2026-03-01T08:00:00+02:00\n", "is not a time"),
        ("sent", "2026-02-29T08:00:00+02:00", "is not a date and time that exists"),
        ("sent", "2026-02-28T24:00:00+02:00", "is not a date and time that exists"),
        ("sent", 1772352000, "sent: '1772352000' is not a time"),
        (
            "status",
            "actual",
            "status: 'actual' is not one of Actual, Exercise, System, Test, Draft",
        ),
        ("status", None, "status: 'None' is not one of"),
        ("status", ["Actual"], "is not one of"),
        ("msgType", "Alarm", "msgType: 'Alarm' is not one of Alert, Update, Cancel, Ack, Error"),
        ("scope", "TLP", "scope: 'TLP' is not one of Public, Restricted, Private"),
        ("scope", "Private", "addresses: is required when scope is Private"),
        ("msgType", "Update", "references: is required when msgType is Update"),
        ("msgType", "Cancel", "references: is required when msgType is Cancel"),
        ("msgType", "Ack", "references: is required when msgType is Ack"),
        ("msgType", "Error", "references: is required when msgType is Error"),
        ("source", "", "source: is empty"),
        ("source", None, "source: is not a string"),
        ("source", " x", "source: begins or ends with white space"),
        ("source", "x\n", "source: begins or ends with white space"),
        ("source", "a\x00b", "source: has a control character"),
        ("source", "a\ufffeb", "source: has a control character"),
        ("source", "a\ud800b", "source: has a control character"),
        ("source", "a" * (256 * 1024 + 1), "source: is longer than 262144 characters"),
        ("addresses", 'a "b', "addresses: must be names separated by single spaces"),
        ("addresses", "a  b", "addresses: must be names"),
        ("addresses", 'a"b', "addresses: must be names"),
        ("incidents", '""', "incidents: must be names"),
        ("references", "a,b", "references: 'a,b' is not of the form sender,identifier,sent"),
        (
            "references",
            "a,b,2026-01-01T00:00:00Z",
            "references: '2026-01-01T00:00:00Z' is not a time",
        ),
        ("references", "a,,2026-01-01T00:00:00+00:00", "is not of the form"),
        ("references", "a,b,2026-01-01T00:00:00+00:00,c", "is not of the form"),
        (
            "references",
            "a,b,2026-01-01T00:00:00+00:00  a,b,2026-01-01T00:00:00+00:00",
            "references: '' is not of the form",
        ),
        ("info.0.language", "et_EE", "info[0].language: 'et_EE' is not a language tag"),
        ("info.0.language", "", "info[0].language: '' is not a language tag"),
        ("info.0.category", [], "info[0].category: is not a list of 1 to 12 items"),
        ("info.0.category", ["Met", "Sea"], "info[0].category[1]: 'Sea' is not one of Geo, Met"),
        ("info.0.event", "", "info[0].event: is empty"),
        ("info.0.urgency", "Now", "info[0].urgency: 'Now' is not one of Immediate"),
        ("info.0.severity", "Bad", "info[0].severity: 'Bad' is not one of Extreme"),
        ("info.0.certainty", "Very Likely", "info[0].certainty: 'Very Likely' is not one of"),
        ("info.0.responseType", ["Run"], "info[0].responseType[0]: 'Run' is not one of Shelter"),
        ("info.0.onset", "soon", "info[0].onset: 'soon' is not a time"),
        ("info.0.eventCode", [{"valueName": "a"}], "info[0].eventCode[0]: is not an object of"),
        ("info.0.eventCode", [{"a": "b"}], "info[0].eventCode[0]: is not an object of exactly"),
        ("info.0.eventCode", ["a"], "info[0].eventCode[0]: is not an object of exactly"),
        ("info.0.parameter.0.valueName", "", "info[0].parameter[0].valueName: is empty"),
        ("info.0.parameter.0.value", 7, "info[0].parameter[0].value: is not a string"),
        ("info.0.web", "www.riik.example", "info[0].web: 'www.riik.example' is not a full"),
        ("info.0.web", "https://a b", "is not a full, absolute URI"),
        ("info.0.web", "https://h:port/", "is not a full, absolute URI"),
        ("info.0.web", "https://h/%zz", "is not a full, absolute URI"),
        ("info.0.web", "https://h/#a#b", "is not a full, absolute URI"),
        ("info.0.web", 'https://h/"', "is not a full, absolute URI"),
        ("info.0.web", "https://h/" + "a" * 8192, "is not a full, absolute URI"),
        ("info.0.area.0.areaDesc", "", "info[0].area[0].areaDesc: is empty"),
        ("info.0.area.0.altitude", "high", "info[0].area[0].altitude: 'high' is not a decimal"),
        ("info.0.area.0.altitude", "1e3", "is not a decimal number"),
        ("info.0.area.0.altitude", ".", "is not a decimal number"),
        ("info.0.area.0.altitude", 120, "is not a decimal number"),
        (
            "info.0.area.0.ceiling",
            "9",
            "info[0].area[0].ceiling: must not be used without altitude",
        ),
        ("info.0.area.0.geocode", [], "info[0].area[0].geocode: is not a list of 1 to 4096 items"),
    ],
)
def test_a_broken_rule_is_named_with_its_element(path, value, answer):
    detail = refusal(changed(path, value))
    assert answer in detail
    assert re.search(r" \(CAP 1\.2 section 3\.2\.[1-4]\)$", detail)


@pytest.mark.parametrize("member", ["identifier", "sender", "sent", "status", "msgType", "scope"])
def test_an_alert_needs_its_six_members(member):
    value = sample_alert()
    del value[member]
    assert refusal(value) == f"{member}: is required (CAP 1.2 section 3.2.1)"


@pytest.mark.parametrize("member", ["category", "event", "urgency", "severity", "certainty"])
def test_an_info_needs_its_five_members(member):
    value = deepcopy(sample_alert())
    del value["info"][1][member]
    assert refusal(value) == f"info[1].{member}: is required (CAP 1.2 section 3.2.2)"


def test_an_area_needs_a_description():
    value = changed("info.0.area", [{"circle": ["1,1 1"]}])
    assert refusal(value) == "info[0].area[0].areaDesc: is required (CAP 1.2 section 3.2.4)"


def test_a_restricted_alert_needs_a_restriction():
    value = sample_alert()
    del value["restriction"]
    assert "restriction: is required when scope is Restricted" in refusal(value)


def test_a_public_alert_may_still_name_addresses_and_a_restriction():
    value = sample_alert(scope="Public", addresses='a@b "Situation Centre, Riga"')
    assert parse_alert(value).addresses == 'a@b "Situation Centre, Riga"'


@pytest.mark.parametrize("msg_type", ["Update", "Cancel", "Ack", "Error"])
def test_a_message_about_others_names_them_and_needs_no_info(msg_type):
    references = "a@b,EE-1,2026-01-01T00:00:00-00:00 a@b,EE-2,2026-01-01T00:00:00+02:00"
    value = sample_alert(msgType=msg_type, references=references)
    del value["info"]
    alert = parse_alert(value)
    assert alert.references == references
    assert alert.info == ()


def test_infos_may_differ_in_category_and_event_code():
    value = changed("info.1.category", ["Met"])
    assert parse_alert(value).info[1].category == (Category.MET,)


def test_more_than_64_infos_are_refused():
    value = sample_alert(info=sample_alert()["info"] * 33)
    assert "info: is not a list of 1 to 64 items" in refusal(value)


def test_a_parameter_may_have_an_empty_value():
    parameter = [{"valueName": "TIME...MOT...LOC", "value": ""}]
    alert = parse_alert(changed("info.0.parameter", parameter))
    assert alert.info[0].parameter == (NameValue("TIME...MOT...LOC", ""),)
    assert format_alert(alert)["info"][0]["parameter"] == parameter


@pytest.mark.parametrize(
    "polygon",
    [
        "0,0 0,1 1,1 0,0",
        "-90,-180 90,180 +45.5,-0.0 -90,-180",
        "90.000,180.00 045.5,007.25 -00.1,099 90.0,180.0",
        "59.0,28 60,28 60,29.5 59,28.0",
        "1.123456789012345,2.123456789012345 1,2 1,3 1.123456789012345,2.123456789012345",
    ],
)
def test_a_closed_polygon_in_range_is_accepted(polygon):
    assert parse_alert(changed("info.0.area.0.polygon", [polygon])).info[0].area[0].polygon == (
        polygon,
    )


@pytest.mark.parametrize(
    ("polygon", "answer"),
    [
        ("0,0 0,1 1,1 0,2", "first and last point differ"),
        ("0,0 0,1 0,0", "has 3 points where at least 4 are required"),
        ("90.1,0 0,1 1,1 90.1,0", "'90.1,0' is not latitude,longitude"),
        ("91,0 0,1 1,1 91,0", "'91,0' is not latitude,longitude"),
        ("0,0 0,180.5 1,1 0,0", "'0,180.5' is not latitude,longitude"),
        ("0,0 0,181 1,1 0,0", "'0,181' is not latitude,longitude"),
        ("0,0 0,1,5 1,1 0,0", "'0,1,5' is not latitude,longitude"),
        ("0,0  0,1 1,1 0,0", "'' is not latitude,longitude"),
        ("0,0 0,1e0 1,1 0,0", "'0,1e0' is not latitude,longitude"),
        ("0,0 ٠,1 1,1 0,0", "'٠,1' is not latitude,longitude"),
        ("0,0 NaN,1 1,1 0,0", "'NaN,1' is not latitude,longitude"),
        ("0 0 0 1 1 1 0 0", "'0' is not latitude,longitude"),
        ("0,0\n0,1 1,1 0,0", "is not latitude,longitude"),
    ],
)
def test_a_polygon_that_breaks_a_rule_is_refused(polygon, answer):
    detail = refusal(changed("info.0.area.0.polygon", ["0,0 0,1 1,1 0,0", polygon]))
    assert detail.startswith("info[0].area[0].polygon[1]: ")
    assert detail.endswith(" (CAP 1.2 section 3.2.4)")
    assert answer in detail


@given(st.decimals(-400, 400, places=3), st.decimals(-400, 400, places=3))
def test_a_pair_is_accepted_exactly_in_the_range_of_wgs_84(latitude, longitude):
    value = changed("info.0.area.0.circle", [f"{latitude:f},{longitude:f} 1"])
    if abs(latitude) <= 90 and abs(longitude) <= 180:
        parse_alert(value)
    else:
        assert "circle[0]" in refusal(value)


@pytest.mark.parametrize("circle", ["1,1", "1,1 -1", "1,1 x", "1 1 1", "1,1 1 1", "1,1 123456"])
def test_a_circle_that_breaks_a_rule_is_refused(circle):
    detail = refusal(changed("info.0.area.0.circle", [circle]))
    assert f"info[0].area[0].circle[0]: {circle!r} is not 'latitude,longitude radius'" in detail


@pytest.mark.parametrize("circle", ["38.820,-122.812 0.0", "0,0 0", "-35.3888,147.0598 25.0"])
def test_a_circle_with_a_radius_of_zero_or_more_is_accepted(circle):
    assert parse_alert(changed("info.0.area.0.circle", [circle])).info[0].area[0].circle == (
        circle,
    )


def test_a_ceiling_goes_with_an_altitude():
    value = changed("info.0.area.0.altitude", "120.5")
    value["info"][0]["area"][0]["ceiling"] = "9842.5"
    area = parse_alert(value).info[0].area[0]
    assert (area.altitude, area.ceiling) == ("120.5", "9842.5")


def resource(**members):
    return changed("info.0.resource", [{"resourceDesc": "map", "mimeType": "image/png"} | members])


@pytest.mark.parametrize(
    "members",
    [
        {"size": 0},
        {"size": 2**53 - 1},
        {"uri": "https://riik.example/a;b?c=d/e?f#g"},
        {"uri": "map.png"},
        {"uri": "./a:b"},
        {"uri": "#part"},
        {"uri": "file:///map.png"},
        {"derefUri": "AAAA"},
        {"derefUri": "AA=="},
        {"digest": "700b1bfc8c93db2ea03cf2ba9949218b0e98339d"},
        {"digest": "F9FE07D78786FDA0B303698CAD8D650AA5901FEC"},
        {"mimeType": "text/html; charset=utf-8"},
        {"mimeType": "audio/x-ipaws-audio-mp3"},
    ],
)
def test_a_resource_in_cap_form_is_accepted_and_written_back(members):
    value = resource(**members)
    assert format_alert(parse_alert(value)) == value | {
        "info": format_alert(parse_alert(value))["info"]
    }
    assert format_alert(parse_alert(value))["info"][0]["resource"] == value["info"][0]["resource"]


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({"size": -1}, "size: is not a non-negative integer"),
        ({"size": True}, "size: is not a non-negative integer"),
        ({"size": "7"}, "size: is not a non-negative integer"),
        ({"size": 2**53}, "size: is not a non-negative integer"),
        ({"uri": ""}, "uri: '' is not a URI"),
        ({"uri": "//host/x"}, "uri: '//host/x' is not a URI"),
        ({"uri": "a b"}, "uri: 'a b' is not a URI"),
        ({"uri": "1:b"}, "uri: '1:b' is not a URI"),
        ({"derefUri": ""}, "derefUri: '' is not base64"),
        ({"derefUri": "AAA"}, "derefUri: 'AAA' is not base64"),
        ({"derefUri": "AA==\n"}, "is not base64"),
        ({"derefUri": "A-_A"}, "is not base64"),
        ({"digest": "sha1"}, "digest: 'sha1' is not a digest in hexadecimal"),
        ({"digest": "abc"}, "is not a digest in hexadecimal"),
        ({"digest": "ab" * 65}, "is not a digest in hexadecimal"),
        ({"mimeType": "image"}, "mimeType: 'image' is not a content type"),
        ({"mimeType": None}, "mimeType: 'None' is not a content type"),
        ({"resourceDesc": ""}, "resourceDesc: is empty"),
        ({"href": "x"}, "info[0].resource[0]: has members that CAP does not know: href"),
    ],
)
def test_a_resource_that_breaks_a_rule_is_refused(members, answer):
    assert answer in refusal(resource(**members))


def test_a_resource_needs_a_description_and_a_type():
    assert "info[0].resource[0].resourceDesc: is required" in refusal(
        changed("info.0.resource", [{"mimeType": "image/png"}])
    )
    assert "info[0].resource[0].mimeType: is required" in refusal(
        changed("info.0.resource", [{"resourceDesc": "map"}])
    )


def test_a_refusal_does_not_repeat_a_whole_hostile_text():
    assert len(refusal(changed("info.0.web", "x" * 100_000))) < 300
    assert len(refusal(sample_alert(**{"x" * 100_000: 1}))) < 300
    assert len(refusal(changed("info.0.area.0.polygon", ["9" * 100_000]))) < 300


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("info.0.area.0.polygon", ["0,0 " * 60_000 + "x"]),
        ("info.0.area.0.polygon", ["00" * 100_000]),
        ("info.0.area.0.circle", ["1" * 200_000]),
        ("addresses", 'a "' * 80_000),
        ("addresses", "a " * 120_000 + '"'),
        ("references", "a,b," * 60_000),
        ("info.0.web", "a:" + "%41" * 2_700 + "<"),
        ("info.0.web", "a://" + "@:" * 4_000 + "<"),
        ("info.0.language", "a" + "-a" * 200),
        ("info.0.description", "a" + " " * 250_000),
        ("identifier", "a" * 250_000 + " "),
    ],
)
def test_hostile_text_is_refused_in_linear_time(path, text):
    # A text of 200 KB in exponential or quadratic time would take minutes: the bound is wide on purpose.
    begun = time.process_time()
    refusal(changed(path, text))
    assert time.process_time() - begun < 2


def test_a_time_of_an_alert_is_an_instant():
    assert parse_cap_time("2026-03-01T10:00:00+02:00") == datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert parse_cap_time("2026-03-01T08:00:00-00:00") == datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_an_instant_is_written_in_utc_as_minus_zero():
    instant = datetime(2026, 3, 1, 10, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert format_cap_time(instant) == "2026-03-01T08:00:00-00:00"
    assert format_cap_time(datetime(900, 1, 2, tzinfo=UTC)) == "0900-01-02T00:00:00-00:00"


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_instant_has_a_form_that_an_alert_accepts(instant):
    text = format_cap_time(instant)
    assert parse_alert(sample_alert(sent=text)).sent == text
    assert parse_cap_time(text) == instant.replace(microsecond=0)


def test_the_sample_is_about_two_kibibytes():
    assert 1800 < len(json.dumps(sample_alert(), ensure_ascii=False).encode()) < 2700
