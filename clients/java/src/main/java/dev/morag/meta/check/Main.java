package dev.morag.meta.check;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import dev.morag.meta.v1.GetJobRequest;
import dev.morag.meta.v1.GetUserRequest;
import dev.morag.meta.v1.Job;
import dev.morag.meta.v1.JobEvent;
import dev.morag.meta.v1.JobFrame;
import dev.morag.meta.v1.JobServiceGrpc;
import dev.morag.meta.v1.JobServiceGrpc.JobServiceBlockingStub;
import dev.morag.meta.v1.JobState;
import dev.morag.meta.v1.User;
import dev.morag.meta.v1.UserServiceGrpc;
import dev.morag.meta.v1.WatchJobRequest;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;

/**
 * A check of the Java stubs: a unary call, a refusal with its reason, and a stream, each read to the end.
 *
 * <p>MORAG_TARGET, MORAG_API_KEY and MORAG_JOB_ID (a job that has ended) come from clients/check.
 */
public final class Main {
  private static final String NOBODY = "00000000-0000-7000-8000-000000000000";

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    String target = System.getenv("MORAG_TARGET");
    ManagedChannel plain = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
    try {
      Channel channel = ClientInterceptors.intercept(plain, credentials());
      User user =
          UserServiceGrpc.newBlockingStub(channel)
              .withDeadlineAfter(30, TimeUnit.SECONDS)
              .getUser(GetUserRequest.newBuilder().setId("me").build());
      JobServiceBlockingStub jobs =
          JobServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
      String reason = refusal(jobs);
      long events = watch(jobs, System.getenv("MORAG_JOB_ID"));
      System.out.printf(
          "java: GetUser says %s, a missing job %s, WatchJob gives events 1 to %d%n",
          user.getRole(), reason, events);
    } finally {
      plain.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static ClientInterceptor credentials() {
    Metadata metadata = new Metadata();
    Metadata.Key<String> name = Metadata.Key.of("x-api-key", Metadata.ASCII_STRING_MARSHALLER);
    metadata.put(name, System.getenv("MORAG_API_KEY"));
    return MetadataUtils.newAttachHeadersInterceptor(metadata);
  }

  /** Asks for a job that does not exist and returns the reason in the error's details. */
  private static String refusal(JobServiceBlockingStub jobs) throws InvalidProtocolBufferException {
    try {
      jobs.getJob(GetJobRequest.newBuilder().setId(NOBODY).build());
    } catch (StatusRuntimeException refused) {
      if (refused.getStatus().getCode() != Status.Code.NOT_FOUND) {
        throw refused;
      }
      for (Any detail : StatusProto.fromThrowable(refused).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          require(info.getDomain().equals("meta.morag.dev"), info.getDomain());
          require(info.getMetadataOrDefault("resource_id", "").equals(NOBODY), info.toString());
          return info.getReason();
        }
      }
    }
    throw new IllegalStateException("GetJob of a missing job gives no reason");
  }

  /** Reads the stream of an ended job, and returns how many events it has. */
  private static long watch(JobServiceBlockingStub jobs, String id) {
    Job job = jobs.getJob(GetJobRequest.newBuilder().setId(id).build());
    JobEvent last = JobEvent.getDefaultInstance();
    Iterator<JobFrame> frames = jobs.watchJob(WatchJobRequest.newBuilder().setJobId(id).build());
    while (frames.hasNext()) {
      JobFrame frame = frames.next();
      if (!frame.hasEvent()) {
        continue; // a heartbeat
      }
      JobEvent event = frame.getEvent();
      require(
          event.getSequence() == last.getSequence() + 1,
          "event " + event.getSequence() + " came after " + last.getSequence());
      last = event;
    }
    require(
        last.getSequence() == job.getLastSequence() && last.getState() == JobState.JOB_STATE_FINISHED,
        "the stream ended with event " + last.getSequence() + " of " + job.getLastSequence());
    return last.getSequence();
  }

  private static void require(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }
}
