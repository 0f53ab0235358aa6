#!/usr/bin/env python3
"""Runs the real binary: `deeper bench` and `deeper doctor`.

cli_bench_test.py DEEPER MPIRUN [unittest arguments]
"""
import json

from cli import CHECKPOINT, COMMUNICATION, DATA, DEEPER, MODEL, MPIRUN, USAGE, Cli, main, run


class Bench(Cli):
    def test_loader(self):
        bench = ["bench", "loader", f"--data={self.data}", "--image_size=10", "--images=50"]
        report = json.loads(self.succeeds(*bench, "--rounds=2"))
        self.assertEqual(report["settings"]["images"], 50)
        self.assertGreater(report["ratios"]["loader_to_pread"], 0)
        self.assertAlmostEqual(sum(report["stages"].values()), 1)
        opened = json.loads(self.succeeds(*bench, ranks=2))
        for how in "rank_0_for_all", "every_rank_all_files":
            self.assertGreater(opened[how]["seconds"], 0)
        self.fails(USAGE, ["needs --data=DIR"], "bench", "loader")

    def test_step(self):
        report = json.loads(self.succeeds("bench", "step", *MODEL, "--batch=4", "--num_classes=10", "--warmup=3", "--repeats=2"))
        self.assertEqual(report["settings"]["batch"], 4)
        self.assertLess(report["warmup_losses"][-1], report["warmup_losses"][0])
        for figure in "images_per_second", "step_ms", "forward_ms", "backward_ms", "update_ms", "peak_rss_bytes", "arena_bytes":
            self.assertGreater(report[figure], 0)
        self.fails(USAGE, ["--warmup"], "bench", "step", "--warmup=0")

    def test_profile_of_a_step(self):
        trace = self.dir / "profile.json"
        done = run("bench", "step", *MODEL, "--batch=4", "--num_classes=10", "--warmup=3", "--repeats=1", f"--profile={trace}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"peak rates measured: copy [\d.]+ GB/s, fp32 \d+ GFLOP/s, bf16 \d+ GFLOP/s")
        for row in "convolution forward", "convolution data gradient", "convolution weight gradient", "pool forward", "sgd", "optimizer":
            self.assertRegex(done.stderr, rf"(?m)^{row} +\d+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$")
        ran = json.loads(trace.read_text())["traceEvents"]
        self.assertEqual(ran[-1]["name"], "sgd")
        self.assertEqual(ran[-1]["args"]["scope"], "optimizer")
        starts = [event["ts"] for event in ran]
        self.assertEqual(starts, sorted(starts))

    def test_op(self):
        small = ["--stem=small", "--batch=1", "--repeats=1", "--threads=1"]
        report = json.loads(self.succeeds("bench", "op", *small, "--op=inception3a"))
        self.assertEqual([op["name"] for op in report["ops"]], ["inception3a"])
        for figure in "forward_us", "backward_us":
            self.assertGreater(report["ops"][0]["separate"][figure], 0)
        report = json.loads(self.succeeds("bench", "op", *small))
        self.assertEqual([report["ops"][0]["name"], report["ops"][-1]["name"], len(report["ops"])], ["stem", "head", 11])
        self.fails(USAGE, ["--op=inception9z", "inception3a"], "bench", "op", *small, "--op=inception9z")

    def test_comm(self):
        sizes = ["--min_bytes=4096", "--max_bytes=65536", "--repeats=3"]
        for ranks, collectives in (2, 5), (3, 4):  # the tree needs a power of two
            result = run("bench", "comm", *sizes, ranks=ranks)
            self.assertEqual(result.returncode, 0, result.stderr)
            report = json.loads(result.stdout)
            self.assertEqual(report["settings"]["ranks"], ranks)
            self.assertEqual(len(report["results"]), 3 * collectives)
            for measured in report["results"]:
                self.assertIn(measured["collective"], result.stderr)
                reduced = 2 if "all_reduce" in measured["collective"] else 1
                factor = reduced * (ranks - 1) / ranks
                for whose, ms in ("", measured["ms"]), ("mpi_", measured["mpi_ms"]):
                    self.assertAlmostEqual(measured[whose + "alg_gb_per_s"], measured["bytes"] / ms / 1e6)
                    self.assertAlmostEqual(measured[whose + "bus_gb_per_s"], factor * measured["bytes"] / ms / 1e6)
        # bf16 cannot represent 1 + 2 + ... + 25, which is the sum of the ranks' inputs.
        many = run("bench", "comm", "--max_bytes=4096", "--repeats=1", "--warmup=1", "--collective=all_reduce_bf16", ranks=25)
        self.assertEqual(many.returncode, 0, many.stderr)
        only = json.loads(run("bench", "comm", *sizes, "--collective=all_gather", ranks=2).stdout)
        self.assertEqual({measured["collective"] for measured in only["results"]}, {"all_gather"})
        self.fails(USAGE, ["--collective=sum"], "bench", "comm", *sizes, "--collective=sum", ranks=2)
        self.fails(USAGE, ["mpirun"], "bench", "comm")
        self.fails(USAGE, ["--max_bytes"], "bench", "comm", "--max_bytes=100", ranks=2)

    def test_checkpoint(self):
        for ranks in 0, 2:
            report = json.loads(self.succeeds("bench", "checkpoint", *MODEL, "--batch=2", "--repeats=2", f"--dir={self.dir}/bench", ranks=ranks))
            self.assertEqual(report["settings"]["ranks"], max(ranks, 1))
            for figure in "bytes", "step_ms", "stall_ms", "save_mb_per_s", "bare_write_mb_per_s", "restore_mb_per_s", "bare_read_mb_per_s":
                self.assertGreater(report[figure], 0)
            self.assertFalse((self.dir / "bench").exists())
        self.fails(USAGE, ["exists already"], "bench", "checkpoint", *MODEL, f"--dir={self.dir}")

    def test_scaling(self):
        scaling = ["bench", "scaling", f"--mpirun={MPIRUN} --oversubscribe --bind-to none --allow-run-as-root", "--steps=2", "--warmup=1"]
        result = run(*scaling, "--ranks=2,1", "--batch=4,2", "--rounds=2", "--predict=16,4096", "--node_gb_per_s=0.001", "--ranks_per_node=2", "--",
                     "--synthetic", "--num_classes=10", *MODEL)
        self.assertEqual(result.returncode, 0, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["benchmark"], "scaling")
        self.assertEqual([(p["kind"], p["ranks"], p["global_batch"]) for p in report["points"]],
                         [("weak", 1, 4), ("weak", 2, 8), ("weak", 1, 2), ("weak", 2, 4), ("strong", 1, 8), ("strong", 2, 8)])
        for point in report["points"]:
            rate, (low, high) = point["images_per_second"]["median"], point["images_per_second"]["ci95"]
            self.assertTrue(low <= rate <= high, point)  # of two runs the median is the mean
            parts = sum(point[part] for part in ("compute_ms", "comm_exposed_ms", "data_wait_ms", "other_ms"))
            self.assertAlmostEqual(parts / point["step_ms"], 1)
            self.assertAlmostEqual(point["peer_wait_ms"] + point["loop_ms"], point["other_ms"])  # medians of two are means
            self.assertGreater(point["loop_ms"], 0)
            apart = (high - rate) / 12.706  # the images/s of the two runs follow from their interval, by Student's t
            steps_ms = [1e3 * point["global_batch"] / (rate + sign * apart) for sign in (-1, 1)]
            self.assertAlmostEqual(sum(steps_ms) / 2 / point["step_ms"], 1, 5)  # of the whole loop
            base = next(p for p in report["points"] if p["kind"] == point["kind"] and p["ranks"] == 1
                        and (p["kind"] == "strong" or p["global_batch"] * point["ranks"] == point["global_batch"]))
            self.assertAlmostEqual(point["efficiency"], rate / point["ranks"] / base["images_per_second"]["median"])
            self.assertAlmostEqual(point["predicted"] / rate - 1, point["error"])
            self.assertEqual(point["held_out"], point["kind"] == "strong" and point["ranks"] == 1)  # all other points calibrate the model
        few, many = report["predictions"]
        self.assertEqual((few["ranks"], many["ranks"]), (16, 4096))
        self.assertLess(few["efficiency"], 0.5)  # 4 MB of gradients at 1 MB/s
        self.assertIn("thread", report["hardware"])
        (self.dir / "scaling.json").write_text(result.stdout)
        calibration = f"--calibration={self.dir}/scaling.json"
        flags = self.dir / "train.flags"
        flags.write_text(f"# as in a recipe\n--checkpoint_dir={self.dir}/saved\n--checkpoint_every=1\n")
        again = run(*scaling, calibration, "--ranks=2", "--batch=2", "--rounds=2", "--kind=weak", "--", "--synthetic", "--num_classes=10", *MODEL,
                    "--flagfile", flags)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(list((self.dir / "saved").iterdir()), [])  # no run resumed another one
        held = json.loads(again.stdout)
        self.assertTrue(held["points"][0]["held_out"])
        for figure in ("fixed_ms", "ms_per_image", "sharing", "concurrent_ranks", "sending_ms_per_byte", "jitter", "spread", "loop_ms",
                       "control_ms_per_level"):
            self.assertAlmostEqual(held["calibration"][figure], report["calibration"][figure])
        self.fails(USAGE, ["of another network"], *scaling, calibration, "--ranks=1", "--rounds=2", "--", "--synthetic", "--num_classes=11", *MODEL)
        self.fails(USAGE, [f"--calibration={DEEPER}", "not the JSON"], *scaling, f"--calibration={DEEPER}")
        self.fails(USAGE, ["--ranks=1,x", "whole numbers"], *scaling, "--ranks=1,x")
        self.fails(USAGE, ["--mpirun", "leave out mpirun"], *scaling, ranks=1)
        self.fails(USAGE, ["no program nowhere"], "bench", "scaling", "--mpirun=nowhere")
        self.fails(USAGE, ["--rounds"], *scaling, "--rounds=1")
        self.fails(USAGE, ["exit code 2", "--model=lenet"], *scaling, "--ranks=1", "--", "--synthetic", "--model=lenet")
        self.fails(DATA, ["exit code 3", "nowhere"], *scaling, "--ranks=1", "--", f"--data={self.dir}/nowhere")

    def test_doctor(self):
        """Whether it measures everything. tests/multinode/doctor_test.py and the unit tests check its findings."""
        doctor = ["doctor", "--synthetic", "--num_classes=10", *MODEL, "--batch=4", "--steps=2"]
        result = run(*doctor, f"--checkpoint_dir={self.dir}/doctor", f"--json={self.dir}/doctor.json", ranks=3)
        self.assertIn(result.returncode, (0, DATA, COMMUNICATION), result.stderr)
        report = json.loads((self.dir / "doctor.json").read_text())
        self.assertEqual(report["fit"], result.returncode == 0)
        self.assertEqual(len(report["ranks"]), 3)
        for rank in report["ranks"]:
            for figure in "link_latency_us", "link_bytes_per_second", "compute_ms", "data_images_per_second", "free_bytes", "memory_bytes", "cores":
                self.assertGreater(rank[figure], 0, figure)
            self.assertTrue(rank["sees_lock"])
            self.assertLess(abs(rank["clock_skew_seconds"]), 1)
        self.assertGreater(report["predicted"]["images_per_second"], 0)
        self.assertIn(report["bottleneck"], result.stdout)
        self.assertIn("images/s predicted on 1 ranks", self.succeeds(*doctor))
        self.fails(DATA, [f"{self.dir}/nowhere"], "doctor", f"--data={self.dir}/nowhere", ranks=2)
        (self.dir / "file").write_text("")
        self.fails(CHECKPOINT, [f"{self.dir}/file"], *doctor, f"--checkpoint_dir={self.dir}/file/x", ranks=2)
        self.fails(USAGE, ["--batch"], *doctor, "--batch=0")


if __name__ == "__main__":
    main()
