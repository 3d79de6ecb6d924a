import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The system class loader of Beam's job server here (-Djava.system.class.loader=HiddenJars -Djars=A:B:C). The job server sends every jar
 * that it finds on its classpath along with every job, 162 of them, which takes longer than the tests' jobs and is of no use where the
 * cluster has the same jars. It cannot be told not to, so it does not find them.
 */
public class HiddenJars extends URLClassLoader {
  public HiddenJars(ClassLoader parent) throws MalformedURLException {
    super(jars(), parent);
  }

  private static URL[] jars() throws MalformedURLException {
    List<URL> urls = new ArrayList<>();
    for (String jar : System.getProperty("jars").split(":")) {
      urls.add(Path.of(jar).toUri().toURL());
    }
    return urls.toArray(new URL[0]);
  }

  @Override
  public URL[] getURLs() {
    return new URL[0];
  }
}
