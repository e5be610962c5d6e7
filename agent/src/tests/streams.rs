//! Data streams on the agent's side: exec and attach with pipes, counters, refusals, and a reader that
//! goes away. In: orders of the fake control plane. Out: frames, and what the fake programs were told.

use super::bench::{Bench, task};
use super::control::wait;
use crate::facilities::fakes::FakeExec;
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_input::Input;
use lighter_proto::v1::stream_order::Order;
use lighter_proto::v1::stream_output::Output;

fn running() -> (Bench, String) {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    (bench, id)
}

fn exec(stdin: bool) -> Order {
    Order::Exec(v1::ExecOrder { command: vec!["cat".to_owned()], stdin, ..Default::default() })
}

fn failure(output: Option<Output>) -> String {
    match output {
        Some(Output::Ended(v1::StreamEnded { result: Some(Ended::Failed(failure)) })) => failure.reason,
        other => panic!("{other:?} is no failure"),
    }
}

fn exited(output: Option<Output>) -> i32 {
    match output {
        Some(Output::Ended(v1::StreamEnded { result: Some(Ended::Exited(code)) })) => code,
        other => panic!("{other:?} is no exit"),
    }
}

#[test]
fn input_reaches_the_program_and_its_output_and_end_come_back() {
    let (bench, id) = running();
    let mut stream = bench.control.open_stream(&id, "small", exec(true));
    assert!(matches!(stream.next(), Some(Output::Started(_))));
    stream.send(Input::Data(b"hello".to_vec()));
    assert_eq!(stream.next(), Some(Output::Stdout(b"hello".to_vec())));
    stream.send(Input::DataEnd(v1::DataEnd {}));
    assert_eq!(exited(stream.next()), 0);
    assert!(stream.next().is_none());
    let said = FakeExec { stdout: b"out".to_vec(), stderr: b"err".to_vec(), code: 9 };
    bench.machine.with(|world| world.execs.insert("small".parse().unwrap(), said));
    let mut stream = bench.control.open_stream(&id, "small", exec(false));
    assert!(matches!(stream.next(), Some(Output::Started(_))));
    let mut got = [stream.next(), stream.next()];
    got.sort_by_key(|output| matches!(output, Some(Output::Stderr(_))));
    assert_eq!(got, [Some(Output::Stdout(b"out".to_vec())), Some(Output::Stderr(b"err".to_vec()))]);
    assert_eq!(exited(stream.next()), 9);
}

#[test]
fn signals_go_to_the_program() {
    let (bench, id) = running();
    let mut stream = bench.control.open_stream(&id, "small", exec(true));
    assert!(matches!(stream.next(), Some(Output::Started(_))));
    stream.send(Input::Signal(2));
    let ended = Some(Output::Ended(v1::StreamEnded { result: Some(Ended::Signaled(2)) }));
    assert_eq!(stream.next(), ended);
}

#[test]
fn a_program_whose_reader_is_gone_is_hung_up_and_an_attached_container_is_not() {
    let (bench, id) = running();
    let signals = |bench: &Bench| bench.machine.with(|world| world.exec_signals.clone());
    let order = Order::Attach(v1::AttachOrder { stdin: true, terminal: None });
    let mut attached = bench.control.open_stream(&id, "small", order);
    assert!(matches!(attached.next(), Some(Output::Started(_))));
    drop(attached);
    let mut stream = bench.control.open_stream(&id, "small", exec(true));
    assert!(matches!(stream.next(), Some(Output::Started(_))));
    drop(stream);
    wait("the hang-up", || (!signals(&bench).is_empty()).then_some(()), String::new);
    assert_eq!(signals(&bench), [1]);
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let (bench, id) = running();
    let refused = |task: &str, container: &str, order: Order| {
        failure(bench.control.open_stream(task, container, order).next())
    };
    assert_eq!(refused(task(9).as_str(), "small", exec(false)), "TASK_NOT_RUNNING");
    assert_eq!(refused(&id, "other", exec(false)), "CONTAINER_NOT_FOUND");
    assert_eq!(refused("x", "small", exec(false)), "INVALID");
    let query = Order::Query(v1::QueryOrder { topic: "news".to_owned(), ..Default::default() });
    assert_eq!(refused(&id, "", query), "NOT_SUPPORTED");
    // The fake's process ids are nobody's.
    let copy = Order::CopyOut(v1::CopyOutOrder { path: "/etc".to_owned(), follow_link: false });
    assert_eq!(refused(&id, "small", copy), "CONTAINER_NOT_RUNNING");
    bench.control.stop(&id, "");
    bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(refused(&id, "small", exec(false)), "TASK_NOT_RUNNING");
}

#[test]
fn counters_come_again_and_again_until_the_task_ends() {
    let (bench, id) = running();
    let order = Order::Stats(v1::StatsOrder { interval_ms: 200 });
    let mut stream = bench.control.open_stream(&id, "", order);
    assert!(matches!(stream.next(), Some(Output::Started(_))));
    let mut reads = Vec::new();
    for _ in 0..2 {
        let Some(Output::Stats(sample)) = stream.next() else { panic!("no sample") };
        assert_eq!((sample.containers.len(), sample.containers[0].pids), (1, Some(1)));
        reads.push(sample.containers[0].read_at_ns);
    }
    assert!(reads[0] < reads[1]);
    bench.control.stop(&id, "");
    loop {
        match stream.next() {
            Some(Output::Stats(_)) => {}
            Some(Output::Ended(_)) => break,
            other => panic!("{other:?}"),
        }
    }
}
