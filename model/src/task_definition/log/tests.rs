//! What each driver's options mean, and what is refused.

use super::*;

fn configuration(driver: &str, options: &[(&str, &str)]) -> LogConfiguration {
    let options = options.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    LogConfiguration { log_driver: driver.to_owned(), options }
}

fn settings(driver: &str, options: &[(&str, &str)]) -> LogSettings {
    configuration(driver, options).settings().unwrap()
}

#[track_caller]
fn refused(driver: &str, options: &[(&str, &str)], field: &str) {
    let problems = configuration(driver, options).settings().unwrap_err();
    assert!(problems.iter().any(|problem| problem.field == field), "{field}: {problems:?}");
}

#[test]
fn sizes_and_defaults_of_each_driver() {
    let file = settings("json-file", &[("max-size", "10m"), ("max-file", "5"), ("mode", "non-blocking")]);
    assert_eq!(file.ring, RingSize { file_bytes_max: Some(10 << 20), files_max: Some(5) });
    assert_eq!(settings("none", &[]).sink, SinkSettings::Nothing);
    let ring = settings("journald", &[("max-buffer-size", "4MB")]).ring;
    assert_eq!(ring, RingSize { file_bytes_max: Some(1 << 20), files_max: Some(4) });
    let SinkSettings::Syslog(syslog) = settings("syslog", &[]).sink else { panic!() };
    assert_eq!((syslog.address, syslog.facility.0), (SyslogAddress::Unix("/dev/log".into()), 3));
    let options =
        [("syslog-address", "tcp://logs"), ("syslog-facility", "local7"), ("syslog-format", "rfc5424")];
    let SinkSettings::Syslog(syslog) = settings("syslog", &options).sink else { panic!() };
    assert_eq!((syslog.address, syslog.facility.0), (SyslogAddress::Tcp("logs:514".into()), 23));
    assert_eq!(syslog.format, SyslogFormat::Rfc5424);
    let options =
        [("fluentd-address", "[::1]:1"), ("fluentd-async", "true"), ("fluentd-request-ack", "true")];
    let SinkSettings::Fluentd(fluentd) = settings("fluentd", &options).sink else { panic!() };
    assert_eq!((fluentd.address, fluentd.request_ack), (FluentdAddress::Tcp("[::1]:1".into()), true));
    let options = [("http-url", "https://logs/in"), ("http-headers", "A=b, C=d=e"), ("labels", "x, y")];
    let SinkSettings::Http(http) = settings("http", &options).sink else { panic!() };
    assert_eq!(http.headers, [("A".into(), "b".into()), ("C".into(), "d=e".into())]);
    assert_eq!(http.attributes.labels, ["x", "y"]);
}

#[test]
fn what_is_wrong_is_named() {
    for driver in ["awslogs", "awsfirelens", "splunk", "gelf", "", "logentries"] {
        refused(driver, &[], "logDriver");
    }
    for driver in LOG_DRIVERS {
        refused(driver, &[("no-such-option", "1"), ("http-url", "http://a")], "options.no-such-option");
    }
    refused("json-file", &[("max-size", "ten")], "options.max-size");
    refused("json-file", &[("max-size", "10")], "options.max-size");
    refused("json-file", &[("max-file", "0")], "options.max-file");
    refused("json-file", &[("compress", "true")], "options.compress");
    refused("json-file", &[("tag", "x")], "options.tag");
    refused("none", &[("max-size", "1m")], "options.max-size");
    refused("journald", &[("mode", "blocking")], "options.mode");
    refused("journald", &[("tag", "{{.ImageID}}")], "options.tag");
    refused("journald", &[("tag", "{{.Name")], "options.tag");
    for address in ["/dev/log", "tcp+tls://a:1", "udp://", "udp://a:b", "unix://relative", "tcp://a b:1"] {
        refused("syslog", &[("syslog-address", address)], "options.syslog-address");
    }
    refused("syslog", &[("syslog-facility", "local8")], "options.syslog-facility");
    refused("syslog", &[("syslog-format", "rfc1")], "options.syslog-format");
    refused("fluentd", &[("fluentd-address", "tls://a:1")], "options.fluentd-address");
    refused("fluentd", &[("fluentd-async", "yes")], "options.fluentd-async");
    refused("fluentd", &[("fluentd-buffer-limit", "1m")], "options.fluentd-buffer-limit");
    refused("http", &[], "options.http-url");
    refused("http", &[("http-url", "ftp://a")], "options.http-url");
    refused("http", &[("http-url", "http://a"), ("http-headers", "a b=c")], "options.http-headers");
    refused("http", &[("http-url", "http://a"), ("http-tls-ca-cert", "ca.pem")], "options.http-tls-ca-cert");
}

#[test]
fn tags_are_filled_in() {
    let template: TagTemplate = "a/{{.Name}}/{{ .TaskID }}.z".parse().unwrap();
    let render = |template: &TagTemplate| template.render(|field| format!("<{field:?}>"));
    assert_eq!(render(&template), "a/<Name>/<TaskId>.z");
    assert_eq!(render(&TagTemplate::default()), "<Id>");
    assert_eq!(render(&"plain".parse().unwrap()), "plain");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(driver in 0..LOG_DRIVERS.len(), name in "[a-z-]{0,16}", text in "\\PC{0,24}") {
        for name in [name.as_str(), "tag", "syslog-address", "fluentd-address", "max-size", "max-file", "http-headers"] {
            let _ = configuration(LOG_DRIVERS[driver], &[(name, &text)]).settings();
        }
    }
}
