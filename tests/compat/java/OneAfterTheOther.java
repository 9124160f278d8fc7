import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs a tool's main method several times in one JVM, whose start is what takes the time.
 *
 * <p>Argument: the class. Standard input: one run a line, its arguments with tabs between them. After
 * each run a line with a form feed is printed. A tool that exits with 0 has just ended.
 */
public class OneAfterTheOther {
    static class Exited extends RuntimeException {
        final int status;

        Exited(int status) {
            super("status " + status);
            this.status = status;
        }
    }

    public static void main(String[] arguments) throws Exception {
        var main = Class.forName(arguments[0]).getMethod("main", String[].class);
        Exit.setExitProcedure(
                (status, message) -> {
                    throw new Exited(status);
                });
        var input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            try {
                main.invoke(null, (Object) line.split("\t"));
            } catch (InvocationTargetException ended) {
                if (!(ended.getCause() instanceof Exited exited) || exited.status != 0) {
                    throw ended;
                }
            }
            System.out.println("\f");
            System.out.flush();
        }
    }
}
