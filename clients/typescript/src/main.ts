// A check of the TypeScript stubs: a unary call, a refusal with its reason, and a stream, each read to the end.
//
// MORAG_TARGET, MORAG_API_KEY and MORAG_JOB_ID (a job that has ended) come from clients/check.
import {
  credentials,
  Metadata,
  status,
  type ClientUnaryCall,
  type ServiceError,
} from "@grpc/grpc-js";

import { ErrorInfo } from "../gen/google/rpc/error_details.js";
import { Status } from "../gen/google/rpc/status.js";
import { JobServiceClient, JobState, jobStateToJSON, type Job } from "../gen/moragmeta/v1/jobs.js";
import { roleToJSON } from "../gen/moragmeta/v1/options.js";
import { UserServiceClient, type User } from "../gen/moragmeta/v1/users.js";

const NOBODY = "00000000-0000-7000-8000-000000000000";
const DEADLINE_MS = 30_000;

const metadata = new Metadata();
metadata.set("x-api-key", process.env["MORAG_API_KEY"] ?? "");
const options = { deadline: Date.now() + DEADLINE_MS };

type Answer<Response> = (error: ServiceError | null, response: Response) => void;

/** Turns one call with a callback into a promise. */
function ask<Response>(call: (answer: Answer<Response>) => ClientUnaryCall): Promise<Response> {
  return new Promise((resolve, reject) => {
    call((error, response) => (error === null ? resolve(response) : reject(error)));
  });
}

function getJob(jobs: JobServiceClient, id: string): Promise<Job> {
  return ask<Job>((answer) => jobs.getJob({ id }, metadata, options, answer));
}

/** Asks for a job that does not exist and returns the reason in the error's details. */
async function refusal(jobs: JobServiceClient): Promise<string> {
  const error = await getJob(jobs, NOBODY).then(
    () => undefined,
    (refused: ServiceError) => refused,
  );
  if (error?.code !== status.NOT_FOUND) {
    throw new Error(`GetJob of a missing job: ${error?.message ?? "found"}`);
  }
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  for (const detail of bytes instanceof Buffer ? Status.decode(bytes).details : []) {
    if (detail.typeUrl !== "type.googleapis.com/google.rpc.ErrorInfo") continue;
    const info = ErrorInfo.decode(detail.value);
    if (info.domain === "meta.morag.dev" && info.metadata["resource_id"] === NOBODY) return info.reason;
  }
  throw new Error("GetJob of a missing job gives no reason");
}

/** Reads the stream of an ended job, and returns how many events it has. */
async function watch(jobs: JobServiceClient, id: string): Promise<number> {
  const job = await getJob(jobs, id);
  let sequence = 0;
  let state = JobState.JOB_STATE_UNSPECIFIED;
  const stream = jobs.watchJob({ jobId: id, afterSequence: 0 }, metadata, options);
  for await (const frame of stream) {
    const event = frame.event;
    if (event === undefined) continue; // a heartbeat
    if (event.sequence !== sequence + 1) {
      throw new Error(`event ${event.sequence} came after ${sequence}`);
    }
    ({ sequence, state } = event);
  }
  if (sequence !== job.lastSequence || state !== JobState.JOB_STATE_FINISHED) {
    const where = `event ${sequence} of ${job.lastSequence}`;
    throw new Error(`the stream ended with ${where} in state ${jobStateToJSON(state)}`);
  }
  return sequence;
}

async function check(): Promise<void> {
  const target = process.env["MORAG_TARGET"] ?? "";
  const users = new UserServiceClient(target, credentials.createInsecure());
  const jobs = new JobServiceClient(target, credentials.createInsecure());
  try {
    const user = await ask<User>((answer) => users.getUser({ id: "me" }, metadata, options, answer));
    const reason = await refusal(jobs);
    const events = await watch(jobs, process.env["MORAG_JOB_ID"] ?? "");
    const role = roleToJSON(user.role);
    console.log(
      `typescript: GetUser says ${role}, a missing job ${reason}, WatchJob gives events 1 to ${events}`,
    );
  } finally {
    users.close();
    jobs.close();
  }
}

check().catch((error: unknown) => {
  console.error("typescript:", error);
  process.exitCode = 1;
});
